"""Amazon MWAA's control plane as a moto service: models (the backend), responses (the protocol), urls (the routes)."""
