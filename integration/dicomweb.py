"""Adapter: asks a DICOMweb server what it keeps (QIDO-RS), through dicomweb-client.

Reading only: dicomweb-client's own retries send an empty body after a 503, so
storing goes through ``stow``. Its retries are off here too: the caller's
back-off is the only one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import requests
import requests.auth
from dicomweb_client.api import DICOMwebClient

from integration.connections import CONNECT_TIMEOUT_S, BasicAuth, BearerAuth, HttpEndpoint
from integration.delivery import DestinationUnavailableError

# These log the address asked, query and all, and a query names a study.
for _logger in ("retrying", "dicomweb_client", "urllib3"):
    logging.getLogger(_logger).setLevel(logging.CRITICAL)

#: (0020,1208) Number of Study Related Instances, PS3.4 Table C.6-1.
_NUMBER_OF_STUDY_RELATED_INSTANCES = "00201208"
_SOP_INSTANCE_UID = "00080018"
#: Answers to QIDO-RS are a few lines; a server that is up gives them soon.
_QUERY_TIMEOUT_S = 60.0


class _Bearer(requests.auth.AuthBase):
    """Bearer token that, unlike a header, a .netrc entry cannot replace."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _VerifiedAdapter(requests.adapters.HTTPAdapter):
    """HTTPS with the endpoint's own TLS context."""

    def __init__(self, endpoint: HttpEndpoint) -> None:
        self._context = endpoint.tls.build_context()
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)


class DicomWebReader:
    """Asks one DICOMweb server; use as a context manager.

    Parameters
    ----------
    endpoint : HttpEndpoint
        The DICOMweb root, e.g. ``http://host/dicom-web``.

    Raises
    ------
    DestinationUnavailableError
        From every method, when there is no usable answer.
    """

    def __init__(self, endpoint: HttpEndpoint) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        if isinstance(endpoint.auth, BasicAuth):
            self._session.auth = (endpoint.auth.user, endpoint.auth.password.get_secret_value())
        elif isinstance(endpoint.auth, BearerAuth):
            self._session.auth = _Bearer(endpoint.auth.token.get_secret_value())
        if endpoint.url.scheme == "https":
            self._session.mount("https://", _VerifiedAdapter(endpoint))
        timeout_s = min(endpoint.timeout_s, _QUERY_TIMEOUT_S)
        self._client = DICOMwebClient(
            endpoint.base_url, session=self._session, timeout=(min(CONNECT_TIMEOUT_S, timeout_s), timeout_s)
        )
        self._client.set_http_retry_params(retry=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def has_instance(self, study_uid: str, sop_instance_uid: str) -> bool:
        """Whether the server keeps an instance in a study."""
        with _translate_errors():
            found = self._client.search_for_instances(
                study_instance_uid=study_uid, search_filters={"SOPInstanceUID": sop_instance_uid}
            )
            return any(_value(instance, _SOP_INSTANCE_UID) == sop_instance_uid for instance in found)

    def count_instances(self, study_uid: str) -> int | None:
        """Return how many instances the server says a study has; None if it does not say."""
        with _translate_errors():
            found = self._client.search_for_studies(
                search_filters={"StudyInstanceUID": study_uid}, fields=[_NUMBER_OF_STUDY_RELATED_INSTANCES]
            )
            if len(found) != 1:
                return None
            count = _value(found[0], _NUMBER_OF_STUDY_RELATED_INSTANCES)
            return None if count is None else int(str(count))


def _value(dataset: dict[str, dict[str, list[object]]], tag: str) -> object | None:
    """Return the first value of an element of the DICOM JSON Model (PS3.18 Annex F)."""
    values = dataset.get(tag, {}).get("Value") or [None]
    return values[0]


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Translate without a cause: the messages of requests quote the address asked, query and all."""
    try:
        yield
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else "unknown"
        raise DestinationUnavailableError(f"QIDO-RS: HTTP {status}: check address and permissions") from None
    except requests.Timeout:
        raise DestinationUnavailableError("QIDO-RS: no answer in time") from None
    except requests.RequestException as error:
        raise DestinationUnavailableError(f"QIDO-RS: connection failed ({type(error).__name__})") from None
    except (ValueError, TypeError, AttributeError):  # not the JSON that QIDO-RS promises
        raise DestinationUnavailableError("QIDO-RS: answer not understood") from None
