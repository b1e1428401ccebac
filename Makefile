# `make help` lists the targets. Everything that is made is under build/, target/,
# .cache/ and the bundles' own root file systems; nothing of it is committed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory --no-builtin-rules

PREFIX ?= /usr/local
CARGO_TARGET_DIR ?= target
export CARGO_TARGET_DIR
# What `husk --version` says it was made of; under sudo the files are another user's.
GIT := git -c safe.directory='*'
export HUSK_COMMIT := $(or $(HUSK_COMMIT),$(shell $(GIT) rev-parse HEAD 2>/dev/null)$(shell \
	$(GIT) diff --quiet HEAD -- src Cargo.toml Cargo.lock vendor 2>/dev/null || [ $$? != 1 ] || echo -dirty))
# As NAME=PATH,EVERY: one case of so many.
FAULTS_PEERS ?= runc=runc,40 crun=crun,10 $(if $(shell command -v youki),youki=youki,20)

HUSK := build/husk
LIMIT := 3000000
CONFORMANCE := build-suites compare count debian images native places prepare report runc-suite \
	runc-tests sources terminal validation validation-tests vm
BUNDLES := hello busybox limits overlay debian
ENGINES := $(filter-out %.md %.py,$(wildcard integration/engines/*))
SCRIPTS := .ci/house .ci/need .ci/run .ci/tiers .ci/toolchain bench/engines bench/run \
	$(ENGINES) \
	bundles/build bundles/demo bundles/test $(wildcard bundles/*/*.sh) \
	$(addprefix integration/conformance/,$(CONFORMANCE)) integration/diagnosis/measure integration/security/security

.PHONY: errors faults security engines bench bench-check bench-baseline build debug demo shell test conformance conformance-runc pages tarball deb check lint size bundles install uninstall clean distclean help built load

build: ## the static release binary, build/husk (the default)
	@. .ci/toolchain; \
	echo "building $(HUSK), static, for $$TARGET"; \
	RUSTFLAGS=$$REPRODUCIBLE cargo build --release --locked --target "$$TARGET" --bin husk; \
	made=$$CARGO_TARGET_DIR/$$TARGET/release/husk; \
	! readelf -l "$$made" | grep -q INTERP || { echo "$$made isn't static" >&2; exit 1; }; \
	cmp -s "$$made" $(HUSK) || as_owner install -D -m 755 "$$made" $(HUSK)

debug: ## the same with debug information, build/husk-debug
	@. .ci/toolchain; \
	cargo build --target "$$TARGET" --bin husk; \
	as_owner install -D -m 755 "$$CARGO_TARGET_DIR/$$TARGET/debug/husk" build/husk-debug

demo: built ## a container from inside and outside, in seconds (root)
	@bundles/build hello busybox limits
	@bundles/demo

shell: built ## an interactive shell in a Debian container (root)
	@[ "$$(id -u)" = 0 ] || { echo "husk makes containers as root: sudo make shell" >&2; exit 1; }
	@bundles/build debian
	@$(HUSK) run -b bundles/debian "shell-$$$$"

test: ## every test tier; sets up what it needs; ends with one line of counts (root)
	@.ci/tiers $(TIERS)

conformance: built ## OCI's validation of runtimes: husk, runc and crun in the virtual machine (root)
	@integration/conformance/compare validation $(HUSK)

conformance-runc: built ## runc's own integration tests, likewise; long, goes on where it stopped (root)
	@integration/conformance/compare runc-suite $(HUSK)

bench: built ## husk, crun, runc and youki in turns, and the bare system calls; ten minutes (root; BENCH_OPTIONS)
	@bench/run $(BENCH_OPTIONS) husk=$(HUSK) $(RUNTIMES)

bench-check: built ## husk's system calls, instructions and times against bench/baseline.json (root)
	@bench/run --check bench/baseline.json husk=$(HUSK)

bench-baseline: built ## what it takes now becomes bench/baseline.json (root)
	@bench/run --baseline bench/baseline.json husk=$(HUSK)

.PHONY: order
order: ## life.ld: the order in which the linker lays husk's functions, from a container's life (root, x86_64)
	@. .ci/toolchain; \
	HUSK_LINK_MAP=$$PWD/build/order/$$TARGET/release/husk.map RUSTFLAGS=$$REPRODUCIBLE \
		cargo build --release --locked --target "$$TARGET" --bin husk --target-dir build/order; \
	bench/run --order life.ld husk="build/order/$$TARGET/release/husk"

.PHONY: fuzz deny sbom reproducible
SCRIPTS += .ci/deny .ci/reproducible fuzz/run

fuzz: ## a minute of fuzzing for each of seven targets; FUZZ="-s 3600 config" for other (nightly Rust)
	@fuzz/run $(FUZZ)

deny: ## licences, doubles, sources and advisories of what husk is built from (by cargo-deny)
	@.ci/deny

reproducible: ## builds twice, in two directories with two cargo homes: the same bytes
	@.ci/reproducible

sbom: ## build/husk.cdx.json: what the binary is made of (CycloneDX)
	@. .ci/toolchain; \
	mkdir -p build; \
	cargo metadata --locked --format-version 1 --filter-platform "$$TARGET" | \
		cargo run --quiet --locked --target "$$TARGET" --example sbom -- cyclonedx >build/husk.cdx.json.new; \
	mv build/husk.cdx.json.new build/husk.cdx.json; \
	echo build/husk.cdx.json

errors: built ## docs/errors.md again: how husk, runc and crun explain broken bundles (root)
	@integration/diagnosis/measure $(HUSK) >docs/errors.md.new
	@mv docs/errors.md.new docs/errors.md

faults: built ## kills husk, runc, crun, youki at every system call, fails each: docs/reliability.md (root, long)
	@.ci/need runc crun
	@. .ci/toolchain; \
	cargo build --quiet -p husk-integration --bins --target "$$TARGET"; \
	faults=$$CARGO_TARGET_DIR/$$TARGET/debug/faults; rm -rf build/faults; \
	"$$faults" --results build/faults husk=$(HUSK) $(FAULTS_PEERS); \
	"$$faults" --results build/faults --document >docs/reliability.md

load: built ## 200 creates at once, 1,000 containers, 5,000 lives, 10,000 races; long (root)
	@. .ci/toolchain; \
	cargo build --quiet -p husk-integration --bins --target "$$TARGET"; \
	HUSK_SUITE_LOAD=1 RUNTIME=$(abspath $(HUSK)) "$$CARGO_TARGET_DIR/$$TARGET/debug/suite" --jobs 1 --verbose load::

security: built ## every published attack on a runtime, on husk, runc and crun; writes the table of docs/security.md (root)
	@.ci/need runc crun strace busybox=busybox-static newuidmap=uidmap
	@. .ci/toolchain; cargo build --quiet -p husk-integration --bins --target "$$TARGET"; \
	SUITE=$$CARGO_TARGET_DIR/$$TARGET/debug/suite integration/security/security --write docs/security.md $(SECURITY_OPTIONS) \
		husk=$(abspath $(HUSK)) runc="$$(command -v runc)" crun="$$(command -v crun)" $(RUNTIMES)

engines: built ## podman, containerd, docker on husk, runc and crun, here and in a machine (root); ENGINES_ONLY="docker ..."
	@.ci/need podman=podman,conmon,catatonit containerd dockerd=docker.io busybox=busybox-static runc crun nft=nftables script=bsdutils skopeo umoci jq
	@integration/vm/vm deps
	@integration/engines/engines --vm --jobs 2 $(addprefix --engine ,$(ENGINES_ONLY)) \
		husk=$(abspath $(HUSK)) runc="$$(command -v runc)" crun="$$(command -v crun)"

check: ## formatting, clippy, the lock file; and that the fuzz targets still compile
	@. .ci/toolchain; \
	for part in fmt clippy; do \
		cargo $$part --version >/dev/null 2>&1 || rustup component add $${part/fmt/rustfmt}; \
	done; \
	cargo fmt --all --check; \
	cargo clippy --workspace --all-targets --target "$$TARGET" -- -D warnings; \
	cargo metadata --locked --format-version 1 >/dev/null; \
	.ci/need c++=g++; \
	RUSTFLAGS="--cfg fuzzing -D warnings" cargo check --locked --manifest-path fuzz/Cargo.toml \
		--target-dir target/fuzz-check

lint: ## the rules that clippy doesn't know: shell scripts and the house
	@.ci/need shellcheck
	@shellcheck -x $(SCRIPTS)
	@.ci/house

size: built ## the binary's size; fails over 3 MB
	@size=$$(stat -c %s $(HUSK)); \
	echo "$(HUSK): $$size bytes of at most $(LIMIT)"; \
	[ "$$size" -le $(LIMIT) ]

bundles: ## the root file systems of all bundles (root, for Debian's)
	@bundles/build $(BUNDLES)

pages: ## man pages and shell completions, into build/share
	@. .ci/toolchain; \
	cargo run --quiet --target "$$TARGET" --example pages -- build/share

install: built pages ## into DESTDIR and PREFIX (/usr/local)
	install -D -m 755 $(HUSK) "$(DESTDIR)$(PREFIX)/bin/husk"
	install -D -m 644 README.md "$(DESTDIR)$(PREFIX)/share/doc/husk/README.md"
	install -D -m 644 LICENSE "$(DESTDIR)$(PREFIX)/share/doc/husk/LICENSE"
	install -d "$(DESTDIR)$(PREFIX)/share/man/man1"
	install -m 644 build/share/man1/*.1 "$(DESTDIR)$(PREFIX)/share/man/man1"
	install -D -m 644 build/share/bash/husk.bash "$(DESTDIR)$(PREFIX)/share/bash-completion/completions/husk"
	install -D -m 644 build/share/zsh/_husk "$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_husk"
	install -D -m 644 build/share/fish/husk.fish "$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/husk.fish"

uninstall: ## what install put there
	rm -f "$(DESTDIR)$(PREFIX)/bin/husk"
	rm -rf "$(DESTDIR)$(PREFIX)/share/doc/husk"
	rm -f "$(DESTDIR)$(PREFIX)"/share/man/man1/husk{,-*}.1
	rm -f "$(DESTDIR)$(PREFIX)/share/bash-completion/completions/husk"
	rm -f "$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_husk"
	rm -f "$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/husk.fish"

tarball: built pages sbom ## build/husk-VERSION-ARCH.tar.gz: the static binary, its pages and its licence
	@version=$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1); \
	name=husk-$$version-$$(uname -m); \
	rm -rf "build/$$name"; \
	$(MAKE) install DESTDIR="build/$$name" PREFIX= >/dev/null; \
	install -m 644 build/husk.cdx.json "build/$$name/share/doc/husk/"; \
	tar -C build --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$$(git log -1 --format=%ct)" \
		-czf "build/$$name.tar.gz" "$$name"; \
	rm -rf "build/$$name"; \
	echo "build/$$name.tar.gz"

deb: built pages sbom ## build/husk_VERSION_ARCH.deb, which depends on nothing (by cargo-deb)
	@. .ci/toolchain; \
	cargo deb --version >/dev/null 2>&1 || cargo install --quiet cargo-deb; \
	mkdir -p build/deb && cp $(HUSK) build/deb/husk && gzip -9nkf build/share/man1/*.1; \
	cargo deb --quiet --no-build --no-strip --output build/

clean: ## what cargo and make built
	rm -rf build
	@if [ "$$CARGO_TARGET_DIR" = target ]; then rm -rf target; else cargo clean --quiet; fi

distclean: clean ## the caches and root file systems, too
	rm -rf .cache bundles/*/{rootfs,work} bundles/*/lower* bundles/*/upper*

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|'

# What runs husk takes one built before, should this machine or this user have no Rust.
built:
	@if [ -x $(HUSK) ] && ! (. .ci/toolchain) >/dev/null 2>&1; then \
		echo "nothing to build with: taking $(HUSK) as it is"; \
	else \
		$(MAKE) build; \
	fi
