"""Programs that people follow runs with: off by default, fed from rows on disk, never by what trains."""
