"""A team's MLflow server: PostgreSQL below it, files in S3, and a password for each user."""

from pathlib import Path
from typing import Any

from tests.servers.mlflow_server import Server
from tests.servers.s3 import S3

ADMIN, ADA, BOB = "admin", "ada", "bob"


class TeamServer(Server):
    """The server, an administrator, and two users: ada may write anywhere, bob read.

    Parameters
    ----------
    folder
        For its log and its settings.
    backend, users
        Addresses of the databases for runs and for users.
    s3
        For the files.
    """

    def __init__(self, folder: Path, backend: str, users: str, s3: S3) -> None:
        settings = folder / "basic_auth.ini"
        settings.write_text(
            "[mlflow]\n"
            "default_permission = READ\n"
            f"database_uri = {users}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
            # otherwise each request computes three slow hashes of the password
            "auth_cache_ttl_seconds = 60\n"
        )
        super().__init__(
            folder,
            backend,
            "s3://mlflow/",
            ["--app-name", "basic-auth"],
            {
                **s3.environment,
                "MLFLOW_AUTH_CONFIG_PATH": str(settings),
                "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
                "MLFLOW_AUTH_ADMIN_PASSWORD": password(ADMIN),
                "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret-of-the-tests",
            },
        )

    def start_with_users(self) -> None:
        """Start for the first time."""
        self.start()
        for user in (ADA, BOB):
            self.ask("2.0/mlflow/users/create", username=user, password=password(user))
        for kind in ("experiment", "registered_model"):
            self.grant(ADA, kind, "*")

    def grant(self, user: str, kind: str, name: str) -> None:
        """Let a user write to an experiment (its id) or a registered model (its name)."""
        self.ask(
            "3.0/mlflow/users/permissions/grant",
            username=user,
            resource_type=kind,
            resource_id=name,
            permission="EDIT",
        )

    def ask(self, path: str, **body: Any) -> Any:
        """Post to the server as the administrator."""
        import requests

        login = (ADMIN, password(ADMIN))
        answer = requests.post(f"{self.uri}/api/{path}", json=body, auth=login, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def environment(self, user: str = ADA) -> dict[str, str]:
        """Return all that a client needs: no key of S3, no password of PostgreSQL."""
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_USERNAME": user,
            "MLFLOW_TRACKING_PASSWORD": password(user),
        }


def password(user: str) -> str:
    return f"password-of-{user}"
