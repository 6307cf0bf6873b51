# docker build -t beear-gate .
# docker run --rm --gpus all -e HF_TOKEN -v "$PWD/data:/data" beear-gate scan org/model
#
# The same image is the sandbox of `beear-gate scan --sandbox docker`, which runs outside of it, beside the engine. Then
# what stands below as ENTRYPOINT, ENV and USER does not count: the container gets its own (docs/design.md, section 11).
#
# Needs BuildKit (the default since Docker 23; before that DOCKER_BUILDKIT=1). /data must be writable by user 10001.
#
#   --build-arg BASE_IMAGE=…             any image with python3 (3.11 or newer) and its venv module
#   --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu     a smaller image without CUDA
#   --build-arg EXTRAS=[lm-eval]         for policies with tasks of lm-eval
#   --secret id=ca,src=ca.crt            certificates for an index behind a proxy; they reach no layer
#   wheels/ beside this file             packages that pip shall find there, tried before the index

ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS build
ARG PIP_EXTRA_INDEX_URL=""
ARG EXTRAS=""
RUN python3 -m venv /opt/beear-gate
# The context is mounted, not copied: sources and wheels are in no layer. pip is for building, so it goes at the end.
RUN --mount=type=bind,target=/src --mount=type=secret,id=ca,target=/run/secrets/ca.crt \
    set -eu; \
    if [ -s /run/secrets/ca.crt ]; then export PIP_CERT=/run/secrets/ca.crt; fi; \
    if [ -d /src/wheels ]; then export PIP_FIND_LINKS=/src/wheels; fi; \
    if [ -z "$PIP_EXTRA_INDEX_URL" ]; then unset PIP_EXTRA_INDEX_URL; fi; \
    /opt/beear-gate/bin/python -m pip install --no-cache-dir --disable-pip-version-check "/src$EXTRAS"; \
    /opt/beear-gate/bin/python -m pip uninstall --yes --quiet pip

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="beear-gate" \
      org.opencontainers.image.description="The security gate that a language model passes before release" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/beear-gate /opt/beear-gate
RUN mkdir -m 0755 /data && chown 10001:10001 /data
# OMP_NUM_THREADS is not set: torch takes the cores it sees. Give it (-e) where the container's share is smaller.
ENV PATH=/opt/beear-gate/bin:$PATH \
    HOME=/data \
    USER=beear-gate \
    HF_HOME=/data/huggingface \
    HF_HUB_DISABLE_TELEMETRY=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /data
ENTRYPOINT ["beear-gate"]
CMD ["--help"]
