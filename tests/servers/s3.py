"""A real S3 server on loopback (SeaweedFS), with buckets for MLflow and for DVC."""

import secrets
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.servers.leash import Leashed
from tests.servers.ports import HOST, free_ports

BUCKETS = ("mlflow", "dvc")
_PARTS = ("master", "volume", "filer", "s3", "admin")


class S3:
    """A server with a folder, ports and keys of its own.

    Parameters
    ----------
    folder
        For its data.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.key, self.secret = "tests", secrets.token_hex(16)
        ports = iter(free_ports(2 * len(_PARTS)))
        self._ports = {
            f"{part}.port{kind}": next(ports) for part in _PARTS for kind in ("", ".grpc")
        }
        self._server: Leashed | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self._ports['s3.port']}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a client of the bucket needs: here the MLflow server alone."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint,
        }

    def start(self) -> None:
        """Start, and return when the buckets are there."""
        weed = shutil.which("weed", path=str(Path(sys.executable).parent))
        command = [str(weed), "mini", f"-dir={self._folder}", f"-ip={HOST}", f"-ip.bind={HOST}"]
        command += [f"-{name}={port}" for name, port in self._ports.items()]
        command += [f"-filer.localSocket={self._folder / 'filer.sock'}"]
        command += [f"-s3.localSocket={self._folder / 's3.sock'}", "-s3.port.iceberg=0"]
        command += ["-webdav=false", "-admin.ui=false", "-master.telemetry=false"]
        command += [f"-bucket={','.join(BUCKETS)}"]
        self._server = Leashed(command, self._folder / "weed.log", self.environment)
        self._server.wait_until(self._is_ready)

    def end(self) -> None:
        if self._server is not None:
            self._server.end()
            self._server = None

    def keys(self, bucket: str) -> list[str]:
        """Return the names of all that is in a bucket."""
        pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def read(self, bucket: str, key: str) -> bytes:
        return self._client().get_object(Bucket=bucket, Key=key)["Body"].read()

    def write(self, bucket: str, key: str, content: bytes) -> None:
        self._client().put_object(Bucket=bucket, Key=key, Body=content)

    def _is_ready(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return {b["Name"] for b in self._client().list_buckets()["Buckets"]} >= set(BUCKETS)
        except (BotoCoreError, ClientError):
            return False

    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 1}),
        )
