# syntax=docker/dockerfile:1
# The package with locked versions, for TPUs or for NVIDIA GPUs; not as root.
#
#   docker build --target tpu --build-arg COMMIT="$(git rev-parse HEAD)" --tag mem1:tpu .
#   docker build --target cuda --build-arg COMMIT="$(git rev-parse HEAD)" --tag mem1:cuda .
#   docker run --rm --gpus all mem1:cuda train --config=atlas --workdir=runs/docker

FROM python:3.12-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
RUN useradd --create-home --uid 1000 mem1 && install --directory --owner=1000 /opt/mem1/runs

# Packages first: a change of the code does not fetch them anew.
FROM base AS tpu-packages
COPY launch/requirements-tpu-py312.txt /tmp/requirements.txt
RUN python -m venv /opt/venv && pip install --no-cache-dir -r /tmp/requirements.txt

FROM base AS cuda-packages
COPY launch/requirements-cuda-py312.txt /tmp/requirements.txt
RUN python -m venv /opt/venv && pip install --no-cache-dir -r /tmp/requirements.txt

FROM base AS code
WORKDIR /opt/mem1
COPY setup.py pyproject.toml LICENSE NOTICE ./
COPY launch launch
COPY configs configs
COPY mem1_jax mem1_jax

FROM base AS cuda
COPY --from=cuda-packages /opt/venv /opt/venv
COPY --from=code --chown=1000 /opt/mem1 /opt/mem1
ARG COMMIT=unknown
ENV MEM1_COMMIT=$COMMIT
WORKDIR /opt/mem1
USER 1000
ENTRYPOINT ["python", "-m", "mem1_jax.main"]
CMD ["--help"]

FROM base AS tpu
COPY --from=tpu-packages /opt/venv /opt/venv
COPY --from=code --chown=1000 /opt/mem1 /opt/mem1
ARG COMMIT=unknown
ENV MEM1_COMMIT=$COMMIT
WORKDIR /opt/mem1
USER 1000
ENTRYPOINT ["python", "-m", "mem1_jax.main"]
CMD ["--help"]
