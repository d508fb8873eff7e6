"""The service's HTTP side: two Sanic applications that run in every worker process."""
