"""Findings as DICOM objects, text and FHIR; nothing here talks to a network."""
