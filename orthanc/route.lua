-- Auto-routing: every stable study goes to the modality `preread`, and nothing is forgotten.
--
--   stable study -> asynchronous C-STORE job with the series that have grown since the last time
--   job done     -> what was sent is remembered on the study, and the node is told that it is complete
--   job failed   -> the study is marked pending and sent again, with a growing pause
--
-- Preread's own results, and every other series that is not made of images, are never routed.
-- Orthanc runs this file twice, once for its events and once for the filter of requests; the two share
-- no variables. So state lives in the study's metadata, where it also survives a restart:
--   PrereadRouted    <series>=<instances>,...                what the node has been sent
--   PrereadPending   <tries>;<due>;<series>=<instances>,...  what it must be sent; the last part is what
--                                                            the running job sends, empty between tries
-- Nothing here may raise: an error in a callback would only be a line in Orthanc's log.

local MODALITY = 'preread'
local RESULT_MANUFACTURER = 'Preread'
local ROUTED, PENDING = 'PrereadRouted', 'PrereadPending'

-- Modalities of objects that describe images instead of being some.
local NOT_IMAGES = {
  SEG = true, SR = true, KO = true, PR = true, DOC = true, RTSTRUCT = true, RTPLAN = true,
  RTDOSE = true, REG = true, FID = true, RWV = true, SMR = true, AU = true, PLAN = true,
}

local FIRST_PAUSE_S, LONGEST_PAUSE_S = 5, 300
local MOST_TRIES = 200 -- with the longest pause between them: about 16 hours
local PERMISSIVE_FROM_TRY = 3 -- from here on one refused instance no longer holds up the others
local RECOVERY_DAYS = 14 -- at start: studies this recent are searched for unfinished sending
local BEAT_S = 5
local WATCH_S = 600 -- how long a stable study may take to become pending
local CHANGES_AT_ONCE = 100

local function get(path)
  local ok, answer = pcall(RestApiGet, path)
  if ok and answer ~= nil then return ParseJson(answer) end
end

local function getMetadata(study, name)
  local listed = get('/studies/' .. study .. '/metadata') or {}
  for _, key in ipairs(listed) do
    if key == name then return RestApiGet('/studies/' .. study .. '/metadata/' .. name) end
  end
end

local function setMetadata(study, name, value)
  pcall(RestApiPut, '/studies/' .. study .. '/metadata/' .. name, value)
end

local function clearMetadata(study, name)
  pcall(RestApiDelete, '/studies/' .. study .. '/metadata/' .. name)
end

local function isOriginal(series)
  local tags = series['MainDicomTags']
  return tags['Manufacturer'] ~= RESULT_MANUFACTURER and not NOT_IMAGES[tags['Modality'] or '']
end

-- Returns { series id -> number of instances } of what is to be read, and the total.
local function originalsOf(study)
  local counts, total = {}, 0
  for _, series in ipairs(get('/studies/' .. study .. '/series') or {}) do
    if isOriginal(series) then
      counts[series['ID']] = #series['Instances']
      total = total + #series['Instances']
    end
  end
  return counts, total
end

-- "<series id>=<count>" joined by commas. Orthanc's JSON would turn an empty table into an array.
local function writeCounts(counts)
  local pairsOfText = {}
  for series, count in pairs(counts) do table.insert(pairsOfText, series .. '=' .. count) end
  table.sort(pairsOfText)
  return table.concat(pairsOfText, ',')
end

local function readCounts(text)
  local counts = {}
  for series, count in string.gmatch(text or '', '([%x-]+)=(%d+)') do counts[series] = tonumber(count) end
  return counts
end

-- Returns { series id -> number of instances } of the series that hold more than was sent.
local function grownSeries(study)
  local routed = readCounts(getMetadata(study, ROUTED))
  local grown = {}
  for series, count in pairs((originalsOf(study))) do
    if count > (routed[series] or 0) then grown[series] = count end
  end
  return grown
end

local function readPending(study)
  local text = getMetadata(study, PENDING)
  if text == nil then return end
  local tries, due, sending = string.match(text, '^(%d+);(%d+);(.*)$')
  if tries == nil then return { tries = 0, due = 0, sending = {} } end
  return { tries = tonumber(tries), due = tonumber(due), sending = readCounts(sending) }
end

local function writePending(study, tries, pause, sending)
  local text = string.format('%d;%d;%s', tries, os.time() + pause, writeCounts(sending))
  setMetadata(study, PENDING, text)
end

local function postpone(study, tries)
  if tries == MOST_TRIES then
    print('preread: study ' .. study .. ' could not be sent in ' .. tries .. ' tries and stays pending; '
      .. 'restart Orthanc to try again')
  end
  writePending(study, tries, math.min(FIRST_PAUSE_S * 2 ^ math.min(tries - 1, 10), LONGEST_PAUSE_S), {})
end

local function send(study, tries)
  local grown = grownSeries(study)
  if next(grown) == nil then return clearMetadata(study, PENDING) end
  local resources = {}
  for series in pairs(grown) do table.insert(resources, series) end
  table.sort(resources)
  -- Pending before the job exists: whatever happens from here on, the study is found again.
  writePending(study, tries, LONGEST_PAUSE_S, grown)
  local job = {
    Resources = resources, Synchronous = false, Permissive = tries >= PERMISSIVE_FROM_TRY, Priority = 10,
  }
  local ok, answer = pcall(RestApiPost, '/modalities/' .. MODALITY .. '/store', DumpJson(job))
  if not ok or answer == nil then postpone(study, tries + 1) end
end

-- Returns the study, the job's content, or nil if the job is none of ours.
local function routedBy(jobId)
  local job = get('/jobs/' .. jobId)
  if job == nil or job['Type'] ~= 'DicomModalityStore' then return end
  local content = job['Content']
  if content['RemoteAet'] ~= (os.getenv('PREREAD_AE_TITLE') or 'PREREAD') then return end
  for _, series in ipairs(content['ParentResources'] or {}) do
    local parent = get('/series/' .. series .. '/study')
    if parent ~= nil then return parent, content end
  end
end

-- Tells the node how many instances the archive holds, so that it need not wait for its quiet period.
-- A node that does not answer loses nothing: its quiet period ends by itself.
local function announce(study, total)
  local api = os.getenv('PREREAD_API_URL')
  if api == nil or api == '' then return end
  local headers = { ['Content-Type'] = 'application/json' }
  local token = os.getenv('PREREAD_API_TOKEN')
  if token ~= nil and token ~= '' then headers['Authorization'] = 'Bearer ' .. token end
  local url = api .. '/studies/' .. study['MainDicomTags']['StudyInstanceUID'] .. '/stable'
  local ok, answer = pcall(HttpPost, url, '{"instances": ' .. total .. '}', headers)
  if not ok or answer == nil then print('preread: the node took no notice of a stable study') end
end

-- Study id -> when to stop looking at it. Each life of this file watches for itself.
local watched = {}
local lastChange, nextBeat = nil, 0

-- Finds the studies that an earlier life of this server left pending.
local function recover()
  lastChange = (get('/changes?last') or {})['Last'] or 0
  local since = os.date('!%Y%m%d', os.time() - RECOVERY_DAYS * 86400)
  local query = { Level = 'Study', Query = { StudyDate = since .. '-' } }
  local ok, found = pcall(RestApiPost, '/tools/find', DumpJson(query))
  if not ok or found == nil then return end
  for _, study in ipairs(ParseJson(found)) do
    if getMetadata(study, PENDING) ~= nil then
      watched[study] = os.time() + WATCH_S
      postpone(study, 1)
    end
  end
end

-- Numbers of JSON are floats here: "123.0" would be no number to Orthanc, which then begins at 0 again,
-- and with more than one page of changes this would never end.
local function watchNewlyStable()
  repeat
    local before = lastChange
    local news = get(string.format('/changes?since=%d&limit=%d', before, CHANGES_AT_ONCE))
    if news == nil then return end
    for _, change in ipairs(news['Changes']) do
      if change['ChangeType'] == 'StableStudy' then watched[change['ID']] = os.time() + WATCH_S end
    end
    lastChange = news['Last']
  until news['Done'] or lastChange <= before
end

local function sendIfDue(study)
  local pending, now = readPending(study), os.time()
  if pending == nil then
    if now > watched[study] then watched[study] = nil end
  elseif pending.tries >= MOST_TRIES then
    watched[study] = nil
  else
    watched[study] = now + WATCH_S
    if pending.due <= now then send(study, pending.tries) end
  end
end

local function beat()
  if os.time() < nextBeat then return end
  nextBeat = os.time() + BEAT_S
  if lastChange == nil then recover() end
  watchNewlyStable()
  local studies = {}
  for study in pairs(watched) do table.insert(studies, study) end
  for _, study in ipairs(studies) do sendIfDue(study) end
end

function OnStableStudy(studyId, tags, metadata)
  local pending = readPending(studyId)
  local isSending = pending ~= nil and next(pending.sending) ~= nil and pending.due > os.time()
  -- What came while a job runs is found when the job ends.
  if not isSending then send(studyId, 0) end
end

-- Remembers what the job has sent. False if the job is not the one that PrereadPending describes.
local function rememberSent(study, pending, content)
  local routed, total = readCounts(getMetadata(study, ROUTED)), 0
  for _, series in ipairs(content['ParentResources']) do
    if pending.sending[series] == nil then return false end
    routed[series] = pending.sending[series]
    total = total + pending.sending[series]
  end
  if total ~= content['InstancesCount'] then return false end
  setMetadata(study, ROUTED, writeCounts(routed))
  return true
end

function OnJobSuccess(jobId)
  local study, content = routedBy(jobId)
  if study == nil then return end
  local id = study['ID']
  local pending = readPending(id)
  if pending == nil then return end
  local isComplete = (content['FailedInstancesCount'] or 0) == 0 and rememberSent(id, pending, content)
  if isComplete and next(grownSeries(id)) == nil then
    local _, total = originalsOf(id)
    clearMetadata(id, PENDING)
    announce(study, total)
  else
    -- A refused instance, or images that came while the job ran.
    postpone(id, pending.tries + 1)
  end
end

function OnJobFailure(jobId)
  local study = routedBy(jobId)
  if study == nil then return end
  local pending = readPending(study['ID'])
  if pending ~= nil then postpone(study['ID'], pending.tries + 1) end
end

-- Orthanc 1.11.1 and later call this by themselves.
function OnHeartBeat()
  beat()
end

local function isForViewers(uri)
  for _, prefix in ipairs({ '/dicom%-web/', '/wado', '/ohif/' }) do
    if string.find(uri, '^' .. prefix) ~= nil then return true end
  end
  return false
end

-- Older versions have no heart beat: there every request, a health check for example, is one.
-- The account `viewer`, which the proxy uses for OHIF, may read and nothing else.
function IncomingHttpRequestFilter(method, uri, ip, username, httpHeaders)
  beat()
  if username == 'viewer' then
    return method == 'GET' and isForViewers(uri)
  end
  return true
end
