# Convolt in a container, for CPUs, or for NVIDIA GPUs with another build of PyTorch:
#   docker build -t convolt .
#   docker build -t convolt:cuda --build-arg TORCH=cu130 .
# docs/installation.md says how data and outputs are mounted.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
WORKDIR /src
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE CHANGELOG.md ./
COPY conf conf
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
ARG TORCH=cpu
ARG EXTRAS=export
# PyTorch first, in a layer of its own: it is large, and seldom another one. torch.compile needs a C++ compiler besides.
# uv finds its builds by name.
RUN pip install --no-cache-dir uv \
 && uv pip install --system --no-cache --torch-backend="${TORCH}" "torch>=2.11" "torchvision>=0.26"
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(ls /wheels/*.whl)[${EXTRAS}]" \
 && useradd --uid 1000 convolt \
 && install --directory --owner=convolt /project
USER convolt
WORKDIR /project
# Another user by --user has neither a name nor a home, which caches of PyTorch and matplotlib ask for.
ENV HOME=/tmp USER=convolt PYTHONUNBUFFERED=1
CMD ["convolt", "--help"]
