-- One row per point of a run's curves (the table curves is its curves.parquet).
SELECT name, x, y FROM curves ORDER BY name, x
