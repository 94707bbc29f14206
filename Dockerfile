# One image for every process: `serve` (the default), `worker`, `migrate`, and the other commands of `vestnik --help`.

FROM python:3.11-slim AS build
RUN python -m venv /opt/venv
WORKDIR /srv/vestnik
COPY requirements.txt requirements-dev.txt ./
RUN /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt
# setuptools alone of the development lock builds the package; the image does not keep it.
RUN awk '/^setuptools==/ {on=1} on {print} on && !/\\$/ {exit}' requirements-dev.txt > /tmp/build.txt \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /tmp/build.txt
COPY . .
RUN /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation --editable . \
    && /opt/venv/bin/pip uninstall --yes setuptools \
    && /opt/venv/bin/python -m compileall -q app migrations

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin vestnik
COPY --from=build /opt/venv /opt/venv
COPY --from=build /srv/vestnik /srv/vestnik
WORKDIR /srv/vestnik
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    VESTNIK_ENV=production VESTNIK_HTTP_HOST=0.0.0.0 VESTNIK_HTTP_PORT=8000
USER 10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health/ready', timeout=4)"]
ENTRYPOINT ["vestnik"]
CMD ["serve"]
