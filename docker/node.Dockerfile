# A PostgreSQL node: the server of Debian, and pgbaton's agent as its parent and as process 1.
#
#   make images                                                    with the binary of `make release`
#   docker build -f docker/node.Dockerfile --target from-source -t pgbaton-node:local .    compiled in a container

FROM debian:trixie-slim AS base
# The numbers are fixed, so that a volume's files belong to the same user whatever image comes next. Group pgbaton reads
# the secrets; an empty volume takes its owner from whichever image sees it last, so both images say the same. Debian's
# package would make a cluster of its own; the agent makes the one there is to be.
RUN groupadd --gid 6432 pgbaton \
    && groupadd --gid 5432 postgres \
    && useradd --uid 5432 --gid postgres --groups pgbaton --home-dir /var/lib/postgresql --no-create-home \
        --shell /bin/bash postgres \
    && install -d /etc/postgresql-common \
    && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf \
    && apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends postgresql-17 \
    # A third of the image is the compiler for JIT. Without its library PostgreSQL runs every plan as it does with jit = off.
    && rm -rf /usr/lib/postgresql/17/lib/llvmjit* /usr/lib/postgresql/17/lib/bitcode /usr/lib/*/libLLVM* /usr/lib/*/libz3.so* \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/* /usr/share/locale /usr/share/i18n \
    && install -d -o postgres -g postgres -m 0750 /var/lib/pgbaton \
    && install -d -o postgres -g postgres -m 0775 /run/postgresql \
    && install -d -o 6432 -g pgbaton -m 0750 /etc/pgbaton/secrets
ENV PATH=/usr/lib/postgresql/17/bin:$PATH LANG=C.UTF-8
COPY docker/healthy docker/start-agent docker/make-demo-role /usr/local/bin/
COPY docker/agent.toml /etc/pgbaton/
USER postgres
WORKDIR /var/lib/pgbaton
EXPOSE 5432 6501
# The agent answers, and the server takes connections.
HEALTHCHECK --interval=5s --timeout=4s --retries=3 --start-period=60s CMD ["healthy", "6501", "/health", "pg_isready", "-q"]
ENTRYPOINT ["start-agent"]

FROM base AS prebuilt
ARG BINARY=target/release/pgbaton
COPY ${BINARY} /usr/local/bin/pgbaton

# The same lines as in pgbaton.Dockerfile: BuildKit compiles once for both.
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
