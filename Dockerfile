# The image is one file: /boathook, static. Use it as
#
#   COPY --from=boathook /boathook /boathook
#
# Two ways to build it, with docker or podman:
#
#   docker build -t boathook .                                      from source, in RUST_IMAGE
#   make dist && docker build -t boathook --target from-dist .      from dist/, without any other image
#
# For another platform: `--platform linux/arm64`, or several with a comma between. Nothing is emulated: the source is
# cross-built, and dist/ has both. `make image` does the second for both, the same bytes each time.

# Any image with cargo 1.95 or rustup, and a C linker for build scripts; glibc, since the musl targets are crossed to.
ARG RUST_IMAGE=rust:1.95-slim

# Before the other stages: builders go through the file up to their target, and this one must need no image.
FROM scratch AS from-dist
ARG TARGETARCH=amd64
COPY dist/linux-${TARGETARCH}/boathook /boathook
LABEL org.opencontainers.image.title="boathook" \
      org.opencontainers.image.description="Runs what has to happen when a container starts and stops" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
# Enough for `install` as an init container: everybody may write into an emptyDir. `COPY --from` takes no user along.
USER 65532:65532
ENTRYPOINT ["/boathook"]

FROM --platform=${BUILDPLATFORM:-linux/amd64} ${RUST_IMAGE} AS source
ARG TARGETARCH
WORKDIR /source
# The toolchain and its targets change less often than the source.
COPY rust-toolchain.toml ./
RUN if command -v rustup >/dev/null; then rustup toolchain install; fi
COPY . .
# What `make dist` does, through the same door, so that it is the same file.
RUN set -eu; \
    case "${TARGETARCH:-amd64}" in \
      amd64) target=x86_64-unknown-linux-musl ;; \
      arm64) target=aarch64-unknown-linux-musl ;; \
      *) echo "no build for ${TARGETARCH}" >&2; exit 1 ;; \
    esac; \
    cargo run --locked -p xtask -- ship boathook --to /shipped "$target"; \
    mv "/shipped/boathook-$target" /boathook

FROM scratch
COPY --from=source /boathook /boathook
LABEL org.opencontainers.image.title="boathook" \
      org.opencontainers.image.description="Runs what has to happen when a container starts and stops" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
USER 65532:65532
ENTRYPOINT ["/boathook"]
