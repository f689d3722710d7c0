# pgbaton by itself, as a user of its own.
#
#   make images                                                    with the binary of `make release`
#   docker build -f docker/pgbaton.Dockerfile --target from-source -t pgbaton:local .      compiled in a container
#
# debian:trixie-slim comes from a registry, or from docker/base-image where none can be reached.

FROM debian:trixie-slim AS base
# Fixed numbers, so that a volume's files belong to the same user in both images.
RUN groupadd --gid 6432 pgbaton \
    && useradd --uid 6432 --gid pgbaton --home-dir /var/lib/pgbaton --no-create-home --shell /usr/sbin/nologin pgbaton \
    && install -d -o pgbaton -g pgbaton -m 0750 /var/lib/pgbaton /etc/pgbaton /etc/pgbaton/secrets
COPY docker/healthy docker/make-secrets /usr/local/bin/
USER pgbaton
WORKDIR /var/lib/pgbaton
EXPOSE 6432 6433
# New clients are accepted and a primary is known.
HEALTHCHECK --interval=5s --timeout=4s --retries=3 --start-period=30s CMD ["healthy", "6433", "/health/ready"]
ENTRYPOINT ["pgbaton"]
CMD ["serve", "-c", "/etc/pgbaton/pgbaton.toml"]

FROM base AS prebuilt
ARG BINARY=target/release/pgbaton
COPY ${BINARY} /usr/local/bin/pgbaton

FROM rust:1-trixie AS compiled
RUN apt-get update && apt-get install -y --no-install-recommends libclang-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY migrations migrations
COPY src src
RUN cargo build --release --locked --bin pgbaton

FROM base AS from-source
COPY --from=compiled /build/target/release/pgbaton /usr/local/bin/pgbaton

# Without --target: the binary that is there.
FROM prebuilt
