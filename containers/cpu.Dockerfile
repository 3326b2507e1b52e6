# rlplan with its CPU engines: the row cpu of plans/software.yaml.
#   docker build -f containers/cpu.Dockerfile -t rlplan:cpu .
FROM python:3.11-slim-bookworm
LABEL rlplan.software="cpu"
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends libnuma1 \
    && rm -rf /var/lib/apt/lists/*
COPY . /opt/src
RUN cd /opt/src && bash install.sh
ENV PATH=/opt/src/.venv/bin:$PATH PYTHONNOUSERSITE=1
RUN useradd --create-home rlplan
USER rlplan
WORKDIR /home/rlplan
CMD ["rlplan", "doctor"]
