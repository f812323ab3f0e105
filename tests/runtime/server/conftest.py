from conftest_of_server import long_model, serve, server

__all__ = ["long_model", "serve", "server"]
