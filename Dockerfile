# One image for every process: `serve` (the default), `worker`, `migrate`, and the other commands of `vestnik --help`.

FROM python:3.11-slim AS packages
RUN python -m venv /opt/venv
COPY requirements.txt .
RUN /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin vestnik
COPY --from=packages /opt/venv /opt/venv
WORKDIR /srv/vestnik
COPY . .
RUN printf '#!/bin/sh\nexec /opt/venv/bin/python -m app.cli "$@"\n' > /usr/local/bin/vestnik \
    && chmod 0755 /usr/local/bin/vestnik \
    && /opt/venv/bin/python -m compileall -q app migrations
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/srv/vestnik PYTHONUNBUFFERED=1 \
    VESTNIK_ENV=production VESTNIK_HTTP_HOST=0.0.0.0 VESTNIK_HTTP_PORT=8000
USER 10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health/ready', timeout=4)"]
ENTRYPOINT ["vestnik"]
CMD ["serve"]
