"""Real servers, real clients, kill -9: what the cluster tests are written with."""

from harness.cluster import DURABLE, Cluster
from harness.database import Database
from harness.load import Load
from harness.server import Server
from harness.wait import wait_until

__all__ = ["DURABLE", "Cluster", "Database", "Load", "Server", "wait_until"]
