"""The rendered templates, and how they are deployed here: as they are, less the resources that MiniStack has no provisioner for."""

import json
import re
import time
from collections import namedtuple

import yaml
from botocore.exceptions import ClientError

Outcome = namedtuple("Outcome", "status reason outputs")


class Loader(yaml.SafeLoader):
    """YAML as CloudFormation reads it: 2012-10-17 is a text, not a day."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class Template:
    """One rendered template."""

    def __init__(self, path):
        self.name = path.stem
        self.document = yaml.load(path.read_text(), Loader)

    @property
    def parameters(self):
        """The declared parameters."""
        return self.document.get("Parameters", {})

    def types(self):
        """Every resource type in it."""
        return sorted({resource["Type"] for resource in self.document["Resources"].values()})

    def of(self, kind):
        """Logical id → properties of the resources of a type."""
        return {
            name: resource.get("Properties", {})
            for name, resource in self.document["Resources"].items()
            if resource["Type"] == kind
        }

    def leave_out(self, which):
        """Takes out the resources for which `which` holds, and the outputs and orders that speak of them. What else speaks of them
        is a fault: the test must then say what stands in. Answers how many."""
        gone = {name for name, resource in self.document["Resources"].items() if which(resource)}
        resources = self.document["Resources"] = {
            name: resource for name, resource in self.document["Resources"].items() if name not in gone
        }
        for resource in resources.values():
            if "DependsOn" in resource:
                order = resource["DependsOn"]
                resource["DependsOn"] = [
                    one for one in ([order] if isinstance(order, str) else order) if one not in gone
                ]
        outputs = self.document.get("Outputs", {})
        self.document["Outputs"] = {name: output for name, output in outputs.items() if not mentions(output, gone)}
        for name, resource in resources.items():
            if mentions(resource, gone):
                raise RuntimeError(f"{self.name}: {name} speaks of a resource that was left out: {sorted(gone)}")
        return len(gone)


def mentions(value, names):
    """Whether an intrinsic in `value` refers to one of these logical ids."""
    if isinstance(value, dict):
        if set(value) == {"Ref"}:
            return value["Ref"] in names
        if set(value) == {"Fn::GetAtt"}:
            target = value["Fn::GetAtt"]
            return (target.split(".")[0] if isinstance(target, str) else target[0]) in names
        if set(value) == {"Fn::Sub"}:
            text = value["Fn::Sub"] if isinstance(value["Fn::Sub"], str) else value["Fn::Sub"][0]
            if {one.split(".")[0] for one in re.findall(r"\$\{([^!}]+)\}", text)} & set(names):
                return True
        return any(mentions(one, names) for one in value.values())
    return isinstance(value, list) and any(mentions(one, names) for one in value)


def deploy(cloud, stack, document, parameters, bucket):
    """Creates or updates a stack; answers how that ended. The template goes by way of a bucket: it may be too large for the call."""
    formation = cloud.client("cloudformation")
    key = f"templates/{stack}.json"
    cloud.client("s3").put_object(Bucket=bucket, Key=key, Body=json.dumps(document).encode())
    declared = document.get("Parameters", {})
    given = [{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items() if name in declared]
    missing = [name for name, about in declared.items() if "Default" not in about and name not in parameters]
    if missing:
        raise RuntimeError(f"{stack}: no value for {', '.join(missing)}")
    arguments = {
        "StackName": stack,
        "Parameters": given,
        "Capabilities": ["CAPABILITY_NAMED_IAM"],
        "TemplateURL": f"{cloud.url}/{bucket}/{key}",
    }
    try:
        formation.create_stack(**arguments)
    except formation.exceptions.AlreadyExistsException:
        formation.update_stack(**arguments)
    except ClientError as error:
        return Outcome("REFUSED", error.response["Error"]["Message"], {})
    return settled(cloud, stack)


def delete(cloud, stack):
    """Deletes a stack and waits for it."""
    formation = cloud.client("cloudformation")
    formation.delete_stack(StackName=stack)
    formation.get_waiter("stack_delete_complete").wait(StackName=stack, WaiterConfig={"Delay": 1, "MaxAttempts": 60})


def settled(cloud, stack):
    """How a stack ended."""
    formation = cloud.client("cloudformation")
    end = time.monotonic() + 120
    while time.monotonic() < end:
        found = formation.describe_stacks(StackName=stack)["Stacks"][0]
        if not found["StackStatus"].endswith("_IN_PROGRESS"):
            pages = formation.get_paginator("describe_stack_events").paginate(StackName=stack)
            events = [event for page in pages for event in page["StackEvents"]]
            reasons = [
                f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}"
                for event in events
                if event["ResourceStatus"].endswith("_FAILED")
            ]
            outputs = {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}
            return Outcome(found["StackStatus"], "; ".join(reversed(reasons)), outputs)
        time.sleep(0.05)
    raise RuntimeError(f"{stack} has not settled")


def unknown_types(outcome):
    """The resource types that MiniStack refused a template for."""
    found = (
        re.search(r"Unrecognized resource types: \[(.*?)\]", outcome.reason) if outcome.status == "REFUSED" else None
    )
    return sorted(re.split(r",\s*", found.group(1))) if found else []
