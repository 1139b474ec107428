# The HTTP server of cliper (docs/server.md), for a CPU, with the bundled model.
#
#   docker build --tag cliper .
#   docker run --rm --publish 8000:8000 --env CLIPER_TOKEN=... cliper
#   docker run --rm --publish 8000:8000 --env CLIPER_TOKEN=... --volume cliper:/home/cliper/.cache \
#     cliper serve --host 0.0.0.0 --model ViT-B/16
#
# It listens on all addresses of the container: set a token, or publish the port to 127.0.0.1 only.
FROM python:3.11-slim

# The cache is the user's before a volume is mounted there: a new volume takes its owner from it.
RUN useradd --create-home --uid 10001 cliper && install -d -o cliper -g cliper /home/cliper/.cache
WORKDIR /opt/cliper
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
# PyTorch's own index has the build without CUDA under the version that constraints.txt pins.
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
    --constraint constraints.txt ".[server]"

USER cliper
WORKDIR /home/cliper
ENV PYTHONUNBUFFERED=1
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["cliper"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
