# The node. One image for the CPU and the GPU: which torch is inside depends on PIP_EXTRA_INDEX_URL.
#
#   docker build -t preread .
#   docker run --rm preread doctor

FROM python:3.11.11-slim-bookworm AS build
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_EXTRA_INDEX_URL=${PIP_EXTRA_INDEX_URL}
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /src
COPY pyproject.toml no-deps.txt README.md LICENSE ./
COPY dicom_node dicom_node
COPY inference inference
COPY reporting reporting
COPY integration integration
RUN pip install '.[language]' && pip install --no-deps --requirement no-deps.txt

FROM python:3.11.11-slim-bookworm
RUN groupadd --gid 10001 preread \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/preread --shell /usr/sbin/nologin preread \
 && install --directory --owner preread --group preread --mode 0750 /var/lib/preread
COPY --from=build /opt/venv /opt/venv
COPY models /opt/preread/models
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PREREAD_DATA_DIR=/var/lib/preread \
    PREREAD_MODELS_DIR=/opt/preread/models
USER 10001:10001
WORKDIR /var/lib/preread
VOLUME /var/lib/preread
EXPOSE 11112 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["preread"]
CMD ["serve"]
