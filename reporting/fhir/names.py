"""Pure. How our FHIR resources are named, so that the same thing always has the same name.

A report is named by study and models, not by version or images: late images or a new
version of a model update the report that is there, and the server keeps the history.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from reporting.fhir.elements import Json
from reporting.fhir.policy import FhirPolicy, WritePolicy
from reporting.uids import derive_uuid

#: R4 gives these no identifier: they carry their name as a tag, which every resource can be searched by.
_WITHOUT_IDENTIFIER: Final = frozenset({"Provenance"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceName:
    """The name of one resource.

    Attributes
    ----------
    value : str
        UUID derived from what the resource is about; identifier value and client-assigned id.
    """

    resource_type: str
    value: str

    @property
    def full_url(self) -> str:
        """URL by which the other entries of a Bundle refer to it."""
        return f"urn:uuid:{self.value}"

    @property
    def reference(self) -> Json:
        """A Reference to it."""
        return {"reference": self.full_url, "type": self.resource_type}

    def request(self, policy: FhirPolicy) -> Json:
        """Return the request that writes it, however often it is sent."""
        if policy.write is WritePolicy.CLIENT_ID:
            return {"method": "PUT", "url": f"{self.resource_type}/{self.value}"}
        parameter = "_tag" if self.resource_type in _WITHOUT_IDENTIFIER else "identifier"
        token = f"{quote(policy.identifier_system, safe=':/')}|{quote(self.value, safe='')}"
        return {"method": "PUT", "url": f"{self.resource_type}?{parameter}={token}"}

    def own(self, resource: Json, policy: FhirPolicy) -> Json:
        """Return ``resource`` with its name in it."""
        name = {"system": policy.identifier_system, "value": self.value}
        named = dict(resource)
        if self.resource_type in _WITHOUT_IDENTIFIER:
            tag = {"system": name["system"], "code": name["value"]}
            named["meta"] = {**named.get("meta", {}), "tag": [tag]}
        else:
            named["identifier"] = [name, *named.get("identifier", [])]
        if policy.write is WritePolicy.CLIENT_ID:
            named["id"] = self.value
        return named


def name_resource(resource_type: str, *about: str) -> ResourceName:
    """Return the name of the resource of that type about that thing."""
    return ResourceName(resource_type=resource_type, value=str(derive_uuid("fhir", resource_type, *about)))
