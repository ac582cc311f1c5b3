-- A tenant's own Ed25519 keys, as OpenSSH writes them: those his leases are opened by with
-- plain ssh. jkt is the key's RFC 7638 thumbprint, by which tokens name it too.
CREATE TABLE ng.tenant_key (
    tenant_id uuid NOT NULL REFERENCES ng.tenant,
    jkt text NOT NULL CHECK (jkt ~ '^[A-Za-z0-9_-]{43}$'),
    ssh text NOT NULL CHECK (ssh ~ '^ssh-ed25519 [A-Za-z0-9+/=]{68}$'),
    name text NOT NULL CHECK (length(name) <= 64),
    created_at timestamptz NOT NULL DEFAULT now(),
    removed_at timestamptz
);
-- One that was removed may be added again.
CREATE UNIQUE INDEX tenant_key_once ON ng.tenant_key (tenant_id, jkt) WHERE removed_at IS NULL;

-- Where the node takes ssh: {port, user, host_key}; null: it does not.
ALTER TABLE ng.node ADD COLUMN ssh jsonb;
