#   docker build -t hsiclust --build-arg TORCH_INDEX_URL=ADDRESS .     torch for the CPU, small
#   docker build -t hsiclust:cuda --build-arg VARIANT=cuda .           torch for CUDA, some gigabytes
#   docker run --rm -v "$PWD:/data" -u "$(id -u):$(id -g)" hsiclust train scene.tif
#
# VARIANT=cpu wants the CPU build of torch. On Linux x86-64 the package index that pip uses by default
# has the CUDA build only; ADDRESS is the index of the CPU build as PyTorch's installation page shows
# it (choose Linux, Pip, CPU), or a mirror of it. Without it the build stops at once, rather than
# fetch gigabytes that nobody asked for.
# VARIANT=cuda takes torch from the default index, where its wheel brings the CUDA libraries; the
# host needs the NVIDIA driver and its container toolkit: docker run --gpus all ...
#
# Nothing can be installed into a container that runs, so the image reads EMIT, PRISMA, NEON and S3 as
# it is. ONNX files want 400 MB more: --build-arg EXTRAS=hdf5,s3,onnx

ARG BASE=python:3.11-slim-bookworm


FROM ${BASE} AS builder
ARG VARIANT=cpu
ARG TORCH_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src

# torch first, in a layer of its own: it is the largest and changes least.
# `+cpu` is a local version that only the CPU build carries, so pip cannot take the other by mistake;
# constraints.txt pins the version without it and so agrees with both.
COPY constraints.txt ./
RUN python3 -m venv /opt/hsiclust
RUN torch="$(grep '^torch==' constraints.txt)" \
    && case "${VARIANT}" in \
        cpu) torch="${torch}+cpu" ;; \
        cuda) ;; \
        *) echo "VARIANT is '${VARIANT}': it must be cpu or cuda" >&2; exit 1 ;; \
    esac \
    && { /opt/hsiclust/bin/pip install -c constraints.txt \
            ${TORCH_INDEX_URL:+--extra-index-url "${TORCH_INDEX_URL}"} "${torch}" \
        || { echo "pip could not install ${torch}, its own lines above say why. Where none was found:" \
                "give --build-arg TORCH_INDEX_URL=..., see the head of the Dockerfile" >&2; \
             exit 1; }; }

# The wheel, not the checkout: the image runs what a user installs.
ARG EXTRAS=hdf5,s3
COPY . ./
RUN /opt/hsiclust/bin/pip wheel --no-deps --wheel-dir /wheel . \
    && wheel="$(echo /wheel/*.whl)" \
    && /opt/hsiclust/bin/pip install -c constraints.txt "${wheel}${EXTRAS:+[${EXTRAS}]}" \
    && /opt/hsiclust/bin/pip check


FROM ${BASE}
# GDAL inside the rasterio wheel takes libexpat from the system.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libexpat1 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=builder /opt/hsiclust /opt/hsiclust
RUN useradd --create-home --uid 1000 hsiclust \
    && mkdir /data \
    && chown hsiclust:hsiclust /data
# MPLCONFIGDIR: `docker run -u` may name a user without a home to write to.
ENV PATH=/opt/hsiclust/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib
USER hsiclust
WORKDIR /data
# A library that the system lacks shows here, not at the first run.
RUN python3 -c "import pyogrio, rasterio, torch; print('torch', torch.__version__)"
ENTRYPOINT ["hsiclust"]
CMD ["--help"]
