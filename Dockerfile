# The image is one file: /boathook, static. Use it as
#
#   COPY --from=boathook /boathook /boathook
#
# Two ways to build it:
#
#   docker build -t boathook .                                      from source, in RUST_IMAGE
#   make dist && docker build -t boathook --target from-dist .      from dist/, without any other image
#
# Both work with `podman build`. For another platform: `--platform linux/arm64`, which cross-builds without emulation; with
# from-dist also `--build-arg MACHINE=aarch64`.

# Any image with cargo 1.95 or rustup, and a C linker for build scripts; glibc, since the musl targets are crossed to.
ARG RUST_IMAGE=rust:1.95-slim

# Before the other stages: builders go through the file up to their target, and this one must need no image. The machine
# is an argument, as TARGETARCH spells it differently and podman cannot choose a stage by a variable.
FROM scratch AS from-dist
ARG MACHINE=x86_64
COPY dist/boathook-${MACHINE}-unknown-linux-musl /boathook
LABEL org.opencontainers.image.title="boathook" \
      org.opencontainers.image.description="Runs what has to happen when a container starts and stops" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
ENTRYPOINT ["/boathook"]

FROM --platform=${BUILDPLATFORM:-linux/amd64} ${RUST_IMAGE} AS source
ARG TARGETARCH
WORKDIR /source
# The toolchain and its targets change less often than the source.
COPY rust-toolchain.toml ./
RUN if command -v rustup >/dev/null; then rustup toolchain install; fi
COPY . .
RUN set -eu; \
    case "${TARGETARCH:-amd64}" in \
      amd64) target=x86_64-unknown-linux-musl ;; \
      arm64) target=aarch64-unknown-linux-musl ;; \
      *) echo "no build for ${TARGETARCH}" >&2; exit 1 ;; \
    esac; \
    cargo build --release --locked -p boathook --bin boathook --target "$target"; \
    cp "target/$target/release/boathook" /boathook

FROM scratch
COPY --from=source /boathook /boathook
LABEL org.opencontainers.image.title="boathook" \
      org.opencontainers.image.description="Runs what has to happen when a container starts and stops" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
ENTRYPOINT ["/boathook"]
