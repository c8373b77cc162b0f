"""The images of a throwaway cluster."""

from k8s.image.build import build, docker

IMAGE, SANDBOX = "localhost/ml-assets:local", "localhost/ml-assets-sandbox:local"  # as the overlay `local` names them
NEXT = "localhost/ml-assets:next"


def build_all() -> tuple[str, ...]:
    """Build what a throwaway cluster runs, and a release to upgrade to, which only calls itself newer; return tags."""
    build("runtime", IMAGE)
    build("sandbox", SANDBOX)
    docker("build", "-t", NEXT, "-", input=f"FROM {IMAGE}\nENV ML_ASSETS_CODE_VERSION=next\n")
    return IMAGE, SANDBOX, NEXT
