"""A real server with the configuration of production: `deploy/nats.conf`, as one server on loopback."""

from __future__ import annotations

import re
from pathlib import Path

from eventsched.nats_server import NatsServer

CONF = Path(__file__).parents[1] / "deploy/nats.conf"


class ProductionServer(NatsServer):
    """One of production's servers, without the other two. Its users are roles; `acme` is a tenant."""

    def _conf(self) -> str:
        text = re.sub(r"\ncluster \{.*?\n\}\n", "\n", CONF.read_text(), flags=re.DOTALL)
        text = text.replace("server_name: log-1", f"server_name: {self.name}")
        text = text.replace("0.0.0.0:4222", f"127.0.0.1:{self.port}").replace("/var/lib/nats", str(self.data / "store"))
        text = text.replace("max_file_store: 100GB", "max_file_store: 16GB").replace("max_file: 90GB", "max_file: 15GB")
        return re.sub(r"\$([A-Z]+)_PASSWORD", lambda found: f'"{self._password(found[1].lower())}"', text)
