-- One row: the schema that this index was made with, and its generation.
SELECT schema_digest, generation FROM meta
