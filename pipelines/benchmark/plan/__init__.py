"""How long a job takes and what it costs on a given cluster, before it is started."""
