# The service in a container:
#
#   docker build -t inkling .
#   docker run --rm -v "$PWD/runs:/runs:ro" -v inkling-keys:/keys inkling keys create alice --keys /keys/keys.sqlite
#   docker run --rm -p 8000:8000 -v "$PWD/runs:/runs:ro" -v inkling-keys:/keys inkling
#
# The compiler builds the decoding step for the processor it runs on, when the service starts.
FROM python:3.13-slim

RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
# PIP_OPTIONS chooses where torch comes from, such as an index of CPU builds.
ARG PIP_OPTIONS=""
RUN pip install --no-cache-dir ${PIP_OPTIONS} '.[serve]' \
    && useradd --create-home inkling \
    && mkdir /keys && chown inkling /keys

USER inkling
VOLUME /keys
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=60s \
    CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health?ready=true', timeout=3)"
ENTRYPOINT ["inkling"]
CMD ["serve", "/runs/model", "--host", "0.0.0.0", "--keys", "/keys/keys.sqlite", "--log", "json"]
