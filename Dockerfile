# The toolkit with its CPU kernel compiled in. Not built by the project's tests: tell us what fails.
#   docker build -t mambair .
#   docker run --rm -v "$PWD:/work" mambair restore -i photos -o enlarged
FROM python:3.12-slim-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml setup.py README.md LICENSE ./
COPY mambair mambair
COPY kernels kernels
COPY options options
COPY scripts/build_wheel.py scripts/build_wheel.py
RUN python -m venv /opt/mambair \
    && /opt/mambair/bin/pip install --no-cache-dir torch --index-url https://download.pytorch.org/whl/cpu \
    && /opt/mambair/bin/pip install --no-cache-dir "setuptools>=77" . \
    && /opt/mambair/bin/python scripts/build_wheel.py --output /wheels \
    && /opt/mambair/bin/pip install --no-cache-dir --no-deps --force-reinstall /wheels/mambair-*.whl

FROM python:3.12-slim-bookworm
# torch's OpenMP
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home mambair
COPY --from=build /opt/mambair /opt/mambair
USER mambair
WORKDIR /work
ENTRYPOINT ["/opt/mambair/bin/mambair"]
CMD ["--help"]
