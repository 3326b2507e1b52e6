# rlplan for NVIDIA GPUs: the row cuda-13.0 of plans/software.yaml. Not built by its authors yet.
#   docker build -f containers/cuda.Dockerfile -t rlplan:cuda-13.0 .
FROM nvidia/cuda:13.0.2-cudnn-devel-ubuntu24.04
LABEL rlplan.software="cuda-13.0"
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]

# libnuma and the verbs libraries are loaded at run time, by vLLM and by NCCL.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates ibverbs-providers libibverbs1 libnuma1 librdmacm1 \
        python3.12 python3.12-dev python3.12-venv \
    && rm -rf /var/lib/apt/lists/*

# A venv of its own: what Ubuntu or a home directory holds does not leak in.
RUN python3.12 -m venv /opt/rlplan
ENV PATH=/opt/rlplan/bin:$PATH PYTHONNOUSERSITE=1

COPY constraints/cuda.txt /opt/constraints/cuda.txt
RUN pip install --no-cache-dir -r /opt/constraints/cuda.txt mpi4py==4.1.2 mpich==5.0.2
COPY . /opt/src
RUN pip install --no-cache-dir -c /opt/constraints/cuda.txt "/opt/src[cuda]"

# Ranks are nobody special; apptainer and enroot run the caller as himself anyway.
RUN useradd --create-home rlplan
USER rlplan
WORKDIR /home/rlplan
CMD ["rlplan", "doctor"]
