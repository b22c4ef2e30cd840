"""What `kubectl apply -k` would send: valid, safe, of the size it says, and a typo in it is found."""

import copy
import functools
import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from pipelines.search.config import SearchConfig
from pipelines.serve import app
from pipelines.serve.access import TOKEN_VARIABLE
from pipelines.serve.config import ServeConfig
from pipelines.settings.command_line import load_config
from tests.cluster.crd_schema import validator_of
from tests.jobs.test_job_contract import CONFIGS

CLUSTER = Path(__file__).parents[2] / "cluster"
CRDS = Path(__file__).parents[3] / "shared" / "kuberay-crds"
KUBERNETES = "1.37.0"
OVERLAYS = ("cpu-small", "gpu-8", "gpu-64-elastic")
STAGES = {"prepare", "transfer", "train", "evaluate", "search"}
PREPARED = {"prepare-youtube8m", "prepare-ucf101"}
SERVED = ("cpu-small", "gpu-8")
BUILDS = [
    "mlflow",
    *(f"kuberay/overlays/{overlay}" for overlay in OVERLAYS),
    *(f"kuberay/overlays/{overlay}/jobs" for overlay in OVERLAYS),
    *(f"kuberay/overlays/{overlay}/serve" for overlay in SERVED),
]


def build(folder):
    """Resources as kubectl sends them."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: .ci/run does it")
    return copy.deepcopy(_built(folder))


@functools.cache
def _built(folder):
    built = subprocess.run(["kubectl", "kustomize", CLUSTER / folder], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return list(yaml.safe_load_all(built.stdout))


def check(resource):
    """Raise a ValidationError where the API server would refuse the resource or drop a part of it."""
    if resource["kind"] == "RayService":  # its schema is not there, but that of the cluster inside it is
        assert resource["spec"].keys() == {"rayClusterConfig", "serveConfigV2", "excludeHeadPodFromServeSvc"}
        ServeDeploySchema.model_validate(yaml.safe_load(resource["spec"]["serveConfigV2"]))
        check({**resource, "kind": "RayCluster", "spec": resource["spec"]["rayClusterConfig"]})
    elif resource["apiVersion"] == "ray.io/v1":
        if not CRDS.is_dir():
            pytest.skip(f"the schemas of KubeRay are not at {CRDS}")
        validator_of(CRDS / f"{resource['kind'].lower()}s.yaml", "v1").validate(resource)
    else:
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)


def pod_specs(node):
    """Every pod's spec, however deep."""
    if isinstance(node, dict):
        if "containers" in node:
            yield node
        for value in node.values():
            yield from pod_specs(value)
    elif isinstance(node, list):
        for value in node:
            yield from pod_specs(value)


@pytest.mark.heavy
@pytest.mark.parametrize("folder", BUILDS)
def test_every_resource_is_valid(folder):
    resources = build(folder)
    assert len(resources) >= 7
    for resource in resources:
        check(resource)


def of_kind(kind, folder):
    return [resource for resource in build(folder) if resource["kind"] == kind]


@pytest.mark.heavy
def test_a_typo_is_caught():
    (cluster,) = of_kind("RayCluster", "kuberay/overlays/gpu-8")
    for path, key, value in (
        (["spec", "workerGroupSpecs", 0], "maxReplica", 4),
        (["spec", "autoscalerOptions"], "version", "v3"),
        (["spec", "workerGroupSpecs", 0, "template", "spec"], "terminationGracePeriodSecond", 60),
        (["spec"], "enableInTreeAutoscaling", "yes"),
    ):
        broken = copy.deepcopy(cluster)
        node = broken
        for step in path:
            node = node[step]
        node[key] = value
        with pytest.raises(jsonschema.ValidationError):
            check(broken)
    (deployment,) = of_kind("Deployment", "mlflow")
    deployment["spec"]["template"]["spec"]["containers"][0]["imag"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError):
        check(deployment)


@pytest.mark.parametrize("folder", BUILDS)
def test_pods_are_restricted_and_end_in_time(folder):
    """As the namespace's pod-security level demands; Ray's pods have a minute at least to write a checkpoint."""
    specs = [(resource["kind"], spec) for resource in build(folder) for spec in pod_specs(resource)]
    assert specs
    for kind, spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]
        if kind == "RayCluster":
            assert spec["terminationGracePeriodSeconds"] >= 60
            # A node without so much disk would have the pod evicted in the midst of its work.
            (scratch,) = (each["emptyDir"]["sizeLimit"] for each in spec["volumes"] if each["name"] == "scratch")
            assert spec["containers"][0]["resources"]["requests"]["ephemeral-storage"] == scratch


@pytest.mark.parametrize("folder", BUILDS)
def test_secrets_are_named_and_never_given(folder):
    for resource in build(folder):
        assert resource["kind"] != "Secret"
        for spec in pod_specs(resource):
            for variable in (each for container in spec["containers"] for each in container.get("env", ())):
                if any(word in variable["name"] for word in ("PASSWORD", "TOKEN", "SECRET", "KEY")):
                    assert "secretKeyRef" in variable["valueFrom"]


def test_every_stage_is_a_job_of_the_overlays_own_cluster_that_is_tried_again():
    for overlay in OVERLAYS:
        (cluster,) = of_kind("RayCluster", f"kuberay/overlays/{overlay}")
        jobs = of_kind("RayJob", f"kuberay/overlays/{overlay}/jobs")
        names = {job["metadata"]["labels"]["t3d.io/job"] for job in jobs}
        assert names == (STAGES if overlay == "cpu-small" else STAGES - {"prepare"} | PREPARED)
        for job in jobs:
            assert job["metadata"]["namespace"] == cluster["metadata"]["namespace"] == "t3d"
            assert job["spec"]["rayClusterSpec"]["workerGroupSpecs"] == cluster["spec"]["workerGroupSpecs"]
            assert job["spec"]["backoffLimit"] > 0
            submitter = job["spec"]["submitterPodTemplate"]
            assert submitter["metadata"]["labels"]["t3d.io/submits-jobs"] == "true"  # the network policy lets it in
        assert not of_kind("RayCluster", f"kuberay/overlays/{overlay}/jobs")


def test_the_operator_takes_every_job_and_cluster():
    """What KubeRay refuses beyond its schema, where no API server says so and no pod ever comes."""
    for overlay in OVERLAYS:
        clusters = of_kind("RayCluster", f"kuberay/overlays/{overlay}")
        jobs = of_kind("RayJob", f"kuberay/overlays/{overlay}/jobs")
        assert clusters
        assert jobs
        for job in jobs:
            assert "upgradeStrategy" not in job["spec"]["rayClusterSpec"]
            assert job["spec"]["shutdownAfterJobFinishes"], "or it may have no ttlSecondsAfterFinished"
            assert len(job["metadata"]["name"]) <= 47
        for spec in (*(each["spec"] for each in clusters), *(job["spec"]["rayClusterSpec"] for job in jobs)):
            assert (spec["autoscalerOptions"]["version"], spec["authOptions"]["mode"]) == ("v2", "token")
            assert spec["rayVersion"]
            for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
                assert "labels" not in group["rayStartParams"]
                assert "restartPolicy" not in group["template"]["spec"]
                assert not {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "RAY_enable_autoscaler_v2"} & {
                    variable["name"] for variable in group["template"]["spec"]["containers"][0]["env"]
                }
            for group in spec["workerGroupSpecs"]:
                assert 0 <= group["minReplicas"] <= group["maxReplicas"]


@pytest.mark.parametrize(("overlay", "num_gpus"), [("cpu-small", 0), ("gpu-8", 8)])
def test_a_server_fits_its_cluster_and_is_reached_with_the_token_alone(overlay, num_gpus):
    (service,) = of_kind("RayService", f"kuberay/overlays/{overlay}/serve")
    cluster, deployed = service["spec"]["rayClusterConfig"], yaml.safe_load(service["spec"]["serveConfigV2"])
    assert "upgradeStrategy" not in cluster
    assert deployed["proxy_location"] == "Disabled"
    (application,) = deployed["applications"]
    assert application["import_path"] == f"{app.__name__}:{app.build.__name__}"
    config = ServeConfig.model_validate(application["args"])
    assert config.num_replicas * config.use_gpu == num_gpus
    decode, train = (group["template"]["spec"]["containers"][0] for group in cluster["workerGroupSpecs"])
    decode_nodes, train_nodes = (group["maxReplicas"] for group in cluster["workerGroupSpecs"])
    assert config.decoders <= int(decode["resources"]["requests"]["cpu"])
    assert config.decode_replicas <= decode_nodes
    assert config.num_replicas * config.cpus_per_replica <= train_nodes * int(train["resources"]["requests"]["cpu"])
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    for container in (head, decode):
        assert {"name": "serve", "containerPort": config.port} in container["ports"]
    for container in (head, decode, train):
        # KubeRay's service sends requests to every worker that is ready, and its own probe knows who takes them.
        assert "readinessProbe" not in container
        (token,) = (each for each in container["env"] if each["name"] == TOKEN_VARIABLE)
        assert token["valueFrom"]["secretKeyRef"] == {"name": "t3d-serve", "key": "token"}
    assert not of_kind("RayCluster", f"kuberay/overlays/{overlay}/serve")
    scratch = next(
        each["emptyDir"]["sizeLimit"]
        for each in cluster["workerGroupSpecs"][0]["template"]["spec"]["volumes"]
        if each["name"] == "scratch"
    )
    assert config.limits.open_requests * config.limits.mib / 1024 < _gib(scratch)


@pytest.mark.parametrize(("overlay", "has_gpus"), [("cpu-small", False), ("gpu-8", True), ("gpu-64-elastic", True)])
def test_a_job_names_its_run_so_that_a_retry_resumes_it_and_fits_its_cluster(overlay, has_gpus, monkeypatch):
    monkeypatch.chdir(CLUSTER.parent)
    for job in of_kind("RayJob", f"kuberay/overlays/{overlay}/jobs"):
        python, script, *arguments = job["spec"]["entrypoint"].split()
        assert python == "python"
        stage = Path(script).stem
        quickstart = Path("jobs/recipes") / stage / "quickstart.yaml"
        config = load_config(CONFIGS[stage], argv=arguments, quickstart=quickstart, program=script)
        assert getattr(config, "name", None) or config.output, script
        assert _uses_gpus(config) is (has_gpus and stage != "prepare"), script


def _uses_gpus(config):
    if isinstance(config, SearchConfig):
        return yaml.safe_load(config.base.read_text()).get("scaling", {}).get("use_gpu", False)
    return config.scaling.use_gpu if hasattr(config, "scaling") else getattr(config, "use_gpu", False)


def test_what_the_autoscaler_may_start_is_told_to_the_jobs():
    """T3D_POOLS is what a request is held against; it must say what the groups say."""
    for overlay in OVERLAYS:
        (cluster,) = of_kind("RayCluster", f"kuberay/overlays/{overlay}")
        (head,) = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
        (told,) = (json.loads(each["value"]) for each in head["env"] if each["name"] == "T3D_POOLS")
        groups = {}
        for group in cluster["spec"]["workerGroupSpecs"]:
            resources = group["template"]["spec"]["containers"][0]["resources"]
            gpus = resources["limits"].get("nvidia.com/gpu")
            groups[group["groupName"]] = {"nodes": group["maxReplicas"], "CPU": int(resources["requests"]["cpu"])}
            groups[group["groupName"]] |= {"GPU": gpus} if gpus else {}
        assert told == groups


@pytest.mark.parametrize(
    ("overlay", "gpus", "decode_nodes"), [("cpu-small", 0, 1), ("gpu-8", 8, 4), ("gpu-64-elastic", 64, 32)]
)
def test_an_overlay_is_of_the_size_it_says(overlay, gpus, decode_nodes):
    (cluster,) = of_kind("RayCluster", f"kuberay/overlays/{overlay}")
    head, (decode, train) = cluster["spec"]["headGroupSpec"], cluster["spec"]["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert (decode["groupName"], decode["labels"]) == ("decode", {"t3d.io/pool": "decode"})
    assert (train["groupName"], train["labels"]) == ("train", {"t3d.io/pool": "train"})
    assert decode["maxReplicas"] == decode_nodes
    (container,) = train["template"]["spec"]["containers"]
    assert train["maxReplicas"] * container["resources"]["limits"].get("nvidia.com/gpu", 0) == gpus
    assert container["image"].endswith(":gpu" if gpus else ":cpu")


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """What step 4 of the README makes, with the patch that it proposes; it lies beside a copy of cluster/."""
    folder = tmp_path_factory.mktemp("work")
    shutil.copytree(CLUSTER, folder / "REPOSITORY" / "cluster")
    (commands,) = re.findall(
        r"(cd \.\. && mkdir -p mine.*?)kubectl apply", (CLUSTER / "README.md").read_text(), re.DOTALL
    )
    subprocess.run(["bash", "-ec", f"TAG=abc; {commands}"], cwd=folder / "REPOSITORY", check=True)
    size = folder / "mine" / "size" / "kustomization.yaml"
    size.write_text(re.sub("^# ?", "", size.read_text(), flags=re.MULTILINE))
    return folder / "mine"


@pytest.mark.heavy
def test_what_is_ones_own_reaches_clusters_and_jobs(mine):
    resources = [*build(mine / "base"), *build(mine / "jobs")]
    for resource in resources:
        check(resource)
    images = {container["image"] for spec in pod_specs(resources) for container in spec["containers"]}
    assert {image for image in images if "t3d" in image} == {"REGISTRY/t3d:cpu-abc", "REGISTRY/t3d:gpu-abc"}
    specs = [each["spec"].get("rayClusterSpec", each["spec"]) for each in resources if "ray.io" in each["apiVersion"]]
    assert len(specs) == 7
    for spec in specs:
        assert spec["workerGroupSpecs"][1]["template"]["spec"]["nodeSelector"] == {"NAME": "VALUE"}
        assert spec["workerGroupSpecs"][0]["maxReplicas"] == 4
    assert len({each["metadata"]["name"] for each in resources if each["kind"] == "RayJob"}) == 6
    (settings,) = (each["data"] for each in resources if each["kind"] == "ConfigMap")
    assert settings["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://BUCKET/artifacts"
    assert "127.0.0.1:5000" in settings["MLFLOW_SERVER_ALLOWED_HOSTS"]


def test_the_object_store_fits_in_the_memory_that_backs_it():
    """Ray takes 30 % of a pod's memory for its object store, of which /dev/shm must hold all."""
    for overlay in OVERLAYS:
        (cluster,) = of_kind("RayCluster", f"kuberay/overlays/{overlay}")
        for spec in pod_specs(cluster):
            memory = _gib(spec["containers"][0]["resources"]["limits"]["memory"])
            (shm,) = (each["emptyDir"]["sizeLimit"] for each in spec["volumes"] if each["name"] == "object-store")
            assert 0.3 * memory <= _gib(shm) < 0.5 * memory


def _gib(quantity):
    assert quantity.endswith("Gi")
    return int(quantity.removesuffix("Gi"))
