# The server alone: no torch, no compiler, no shell script. Build, then serve one exported model:
#
#   docker build -t saccade-serve .
#   docker run --rm --read-only --cap-drop ALL --security-opt no-new-privileges -p 127.0.0.1:8000:8000 \
#     -v "$PWD/runs/photos/export:/model:ro" -v "$PWD/token:/run/secrets/token:ro" \
#     saccade-serve /model/model.onnx --name photos
#
# The token (16 characters or more) is needed, since the server listens beyond the container. It is sent as
# `Authorization: Bearer TOKEN`; the health of the server needs none.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
COPY pyproject.toml README.md LICENSE constraints.txt /source/
COPY src /source/src
RUN python -m venv /opt/saccade \
 && /opt/saccade/bin/python -m pip install --no-cache-dir --constraint /source/constraints.txt "/source[serve]" \
 && /opt/saccade/bin/python -m pip uninstall --yes pip

FROM python:${PYTHON}-slim
COPY --from=build /opt/saccade /opt/saccade
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH="/opt/saccade/bin:$PATH"
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=2)"]
ENTRYPOINT ["saccade", "serve", "--host", "0.0.0.0", "--port", "8000", "--token-file", "/run/secrets/token"]
CMD ["/model/model.onnx"]
