"""A real BIND of one's own: started in a folder, on a free port of 127.0.0.1, with a TSIG key, a zone and its reverse zones that
take updates; stopped, killed and started again with what they held.

Plain class, for pytest fixtures. Nothing here touches a BIND that runs on the machine.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

from vedette.testing.rabbit import free_ports

ZONE = "cloud.example.org"
REVERSE = "2.0.192.in-addr.arpa"
REVERSE6 = "8.b.d.0.1.0.0.2.ip6.arpa"
KEY = 'key "vedette" {\n  algorithm hmac-sha256;\n  secret "dmVkZXR0ZS10ZXN0cy1hcmUtbm8tc2VjcmV0cw==";\n};\n'
OTHER_KEY = 'key "other" {\n  algorithm hmac-sha256;\n  secret "c29tZWJvZHktZWxzZXMta2V5LWFsdG9nZXRoZXI=";\n};\n'


class NamedMissing(Exception):
    """There is no named on this machine; the text says how to get one."""


def find_named() -> Path:
    found = shutil.which("named") or shutil.which("named", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise NamedMissing("no named here; on Debian or Ubuntu: apt-get install bind9")
    return Path(found)


class Named:
    """See the module. The key `vedette` may change everything in the zones, `other` is known and may change nothing."""

    def __init__(self, folder: Path, *, zones: tuple[str, ...] = (ZONE, REVERSE, REVERSE6), statements: str = "") -> None:
        """`statements`: keys and zones as named.conf has them, instead of ours; the key `vedette` is in `key_file`."""
        binary = find_named()
        self.folder = folder
        (self.port,) = free_ports(1)
        self._server: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        # Distributions bind /usr/sbin/named to its own folders by AppArmor, which goes by the path.
        self._binary = folder / "named"
        shutil.copy2(binary, self._binary)
        self.key_file = folder / "vedette.key"
        self.key_file.write_text(KEY)
        (folder / "named.conf").write_text(_options(folder, self.port) + (statements or _zones(zones)))
        for zone in zones:
            (folder / f"{zone}.zone").write_text(_zone())

    def start(self, timeout: float = 30.0) -> None:
        """Return when it takes connections. What was updated before a kill is there again: BIND keeps a journal."""
        with (self.folder / "named.log").open("ab") as log:
            self._server = subprocess.Popen(
                [str(self._binary), "-g", "-c", str(self.folder / "named.conf"), "-n", "1"],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + timeout
        while not self._running():
            if self._server.poll() is not None or time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"named did not start:\n{(self.folder / 'named.log').read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """kill -9."""
        if self._server is not None:
            self._server.kill()
            self._server.wait(30)
            self._server = None

    def _running(self) -> bool:
        # The port is open before the zones are loaded.
        log = (self.folder / "named.log").read_text(errors="replace")
        if log.rpartition("starting BIND")[2].count("all zones loaded") == 0:
            return False
        try:
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
        except OSError:
            return False
        return True


def _options(folder: Path, port: int) -> str:
    return f"""options {{
  directory "{folder}"; pid-file none; session-keyfile none; lock-file none;
  listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  recursion no; dnssec-validation no; notify no; allow-transfer {{ none; }};
  managed-keys-directory "{folder}";
}};
controls {{ }};
"""


def _zones(zones: tuple[str, ...]) -> str:
    return (KEY + OTHER_KEY) + "".join(
        f'zone "{zone}" {{ type primary; file "{zone}.zone"; update-policy {{ grant vedette zonesub ANY; }}; }};\n'
        for zone in zones
    )


def _zone() -> str:
    return "$TTL 300\n@ SOA localhost. hostmaster.localhost. 1 3600 600 86400 60\n@ NS localhost.\n"
