-- An outage that the market sees is an incident while it lasts: one a node at a time.
CREATE UNIQUE INDEX incident_outage ON ng.incident (node_id) WHERE to_at IS NULL AND opened_by = 'market' AND reservation_id IS NULL;
CREATE INDEX incident_node ON ng.incident (node_id, from_at) WHERE node_id IS NOT NULL;
