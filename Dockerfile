FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# The one lock pins and verifies every wheel; the application then takes from that folder what it
# depends on, so tools of development stay behind.
COPY requirements.lock ./
RUN pip download --quiet --require-hashes --only-binary :all: --dest /wheels -r requirements.lock

COPY pyproject.toml ./
COPY prompts prompts
COPY tree tree
COPY app app
RUN python -m venv /opt/unillmrec \
    && /opt/unillmrec/bin/pip install --quiet --no-index --find-links /wheels . \
    && /opt/unillmrec/bin/pip uninstall --quiet --yes pip

FROM python:3.13-slim
RUN useradd --system --uid 10001 --user-group --no-create-home unillmrec \
    && install --directory --owner unillmrec --group unillmrec /data
COPY --from=build /opt/unillmrec /opt/unillmrec
ENV PATH=/opt/unillmrec/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    UNILLMREC_DATA_DIR=/data
USER unillmrec
WORKDIR /data
VOLUME /data
EXPOSE 8000

# 200 from /readyz: the service has started and the store is reachable. http.client ignores proxies.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-c", \
    "from http.client import HTTPConnection as C; c = C('127.0.0.1', 8000, timeout=4); \
c.request('GET', '/readyz'); raise SystemExit(c.getresponse().status != 200)"]

# Inside a container the service has to listen on every address, which it does only with a root key:
#   docker run -e UNILLMREC_ADMIN_KEY="$(openssl rand -hex 32)" …
CMD ["unillmrec", "serve", "--host", "0.0.0.0", "--port", "8000"]
