"""Deploys a SAM or CloudFormation template to the local cloud, driven by the template alone.

SAM's own translator makes plain CloudFormation of it; then each resource is created through its service's API, as
moto's CloudFormation would lose much on the way (its state machines do not run, its buckets have no settings). What is
not in MAKERS is offered to moto's CloudFormation (VPC parts, mostly). A type that neither can make, and a property that
would be dropped, raise NotMakeable: nothing is left out in silence. Custom resources ask their function and wait for
its answer; a nested stack is deployed from its own template beside this one.
"""

from __future__ import annotations

import ast
import base64
import io
import ipaddress
import json
import logging
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from moto.backends import get_backend
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from local import custom_resources
from local.lambdas import Function

ACCOUNT = "123456789012"
LOCAL_CODE = "local-code"
"""The bucket that stands for local folders in the transformed template: s3://local-code/[python/]<logical id>."""


class NotMakeable(Exception):
    """A resource, property or reference of a template that the local cloud has no way to make."""


@dataclass(frozen=True)
class Layer:
    """A layer's local folder, and whether it holds libraries, which SAM builds below python/."""

    folder: Path
    libraries: bool


@dataclass(frozen=True)
class Stack:
    """What was deployed. `resources` maps logical ids to physical ones (what Ref gives)."""

    outputs: dict[str, str]
    resources: dict[str, str]
    types: dict[str, str] = field(default_factory=dict)
    """Logical id to resource type."""
    nested: dict[str, Stack] = field(default_factory=dict)
    """Logical id to the stack within."""


@dataclass(frozen=True)
class _Made:
    ref: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


# --- Reading ---


class _TemplateLoader(yaml.CSafeLoader):
    """YAML with CloudFormation's short forms: !Ref, !GetAtt, !Sub ..."""


def _short_form(loader: yaml.CSafeLoader, suffix: str, node: yaml.Node) -> Any:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}": value}


_TemplateLoader.add_multi_constructor("!", _short_form)
# CloudFormation's "2012-10-17" is a string, and so is every other date in a template or a state machine.
_TemplateLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: Path) -> Any:
    """A template, or a state machine in YAML or JSON."""
    return json.loads(_json_of(path.read_text()))


@cache
def _json_of(text: str) -> str:
    return json.dumps(yaml.load(text, _TemplateLoader))


def translate(template_path: Path, parameters: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Path]]:
    """Plain CloudFormation, and the local folder of each function and layer by its key in LOCAL_CODE."""
    template = read_yaml(template_path)
    root = template_path.parent
    folders: dict[str, Path] = {}
    shared = template.get("Globals", {}).get("Function", {}).pop("CodeUri", None)
    for logical_id, resource in template["Resources"].items():
        properties = resource.setdefault("Properties", {})
        if resource["Type"] == "AWS::Serverless::Function":
            folders[logical_id] = (root / properties.pop("CodeUri", shared or ".")).resolve()
            properties["CodeUri"] = f"s3://{LOCAL_CODE}/{logical_id}"
        elif resource["Type"] == "AWS::Serverless::LayerVersion":
            # SAM builds libraries below python/; what it does not build lies at the top.
            key = f"python/{logical_id}" if "BuildMethod" in resource.get("Metadata", {}) else logical_id
            folders[key] = (root / properties["ContentUri"]).resolve()
            properties["ContentUri"] = f"s3://{LOCAL_CODE}/{key}"
        elif resource["Type"] == "AWS::Serverless::StateMachine" and isinstance(properties.get("DefinitionUri"), str):
            properties["Definition"] = read_yaml(root / properties.pop("DefinitionUri"))
    missing = [str(folder) for folder in folders.values() if not folder.is_dir()]
    if missing:
        raise NotMakeable(f"No such code folder: {', '.join(missing)}. Correct CodeUri or ContentUri.")
    if not template.get("Transform"):
        return template, folders
    defaults = {
        name: parameter["Default"]
        for name, parameter in template.get("Parameters", {}).items()
        if "Default" in parameter
    }
    return json.loads(_translated(json.dumps(template), json.dumps({**defaults, **parameters}))), folders


@cache
def _translated(template: str, parameters: str) -> str:
    """Clouds are many, their templates few: the same source gives the same answer."""
    logging.getLogger("samtranslator").setLevel(logging.ERROR)  # it complains of metrics that nobody collects
    translator = Translator({}, Parser())
    return json.dumps(translator.translate(json.loads(template), parameter_values=json.loads(parameters)))


# --- Intrinsic functions ---


class _Resolver:
    """Values of a transformed template. References create what they refer to, so that order needs no thought."""

    def __init__(
        self,
        template: dict[str, Any],
        parameters: Mapping[str, Any],
        pseudo: Mapping[str, Any],
        make: Callable[[str], _Made],
    ) -> None:
        self._template = template
        self._pseudo = pseudo
        self._make = make
        self._parameters: dict[str, Any] = {}
        declared = template.get("Parameters", {})
        if unknown := set(parameters) - set(declared):
            raise NotMakeable(f"The template has no parameter {sorted(unknown)}. It has {sorted(declared)}.")
        for name, parameter in declared.items():
            if name not in parameters and "Default" not in parameter:
                raise NotMakeable(f"Parameter {name} has no default. Give it a value.")
            value = str(parameters.get(name, parameter.get("Default")))
            self._check_parameter(name, parameter, value)
            listed = parameter["Type"].startswith(("CommaDelimitedList", "List<"))
            self._parameters[name] = [each.strip() for each in value.split(",")] if listed else value

    @staticmethod
    def _check_parameter(name: str, parameter: Mapping[str, Any], value: str) -> None:
        allowed = parameter.get("AllowedValues")
        if allowed and value not in map(str, allowed):
            raise NotMakeable(f"Parameter {name} must be one of {allowed}, not {value!r}.")
        pattern = parameter.get("AllowedPattern")
        if pattern and not re.fullmatch(pattern, value):
            raise NotMakeable(f"Parameter {name} must match {pattern}, {value!r} does not.")

    def broken_rules(self) -> list[str]:
        """What the template's Rules say against these parameters; CloudFormation asks them before it makes anything."""
        return [
            assertion.get("AssertDescription", f"Rule {name} does not hold.")
            for name, rule in self._template.get("Rules", {}).items()
            if self.value(rule.get("RuleCondition", True))
            for assertion in rule["Assertions"]
            if not self.value(assertion["Assert"])
        ]

    def condition(self, name: str) -> bool:
        return bool(self.value(self._template["Conditions"][name]))

    def value(self, node: Any) -> Any:
        if isinstance(node, list):
            return [value for each in node if (value := self.value(each)) is not _NO_VALUE]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((name, argument),) = node.items()
            if name == "Ref":
                return self._ref(argument)
            if name == "Condition" and isinstance(argument, str):
                return self.condition(argument)
            if name.startswith("Fn::"):
                return self._function(name.removeprefix("Fn::"), argument)
        return {key: value for key, each in node.items() if (value := self.value(each)) is not _NO_VALUE}

    def _ref(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return _NO_VALUE
        if name in self._pseudo:
            return self._pseudo[name]
        if name in self._parameters:
            return self._parameters[name]
        return self._make(name).ref

    def _attribute(self, logical_id: str, attribute: str) -> Any:
        made = self._make(logical_id)
        if attribute not in made.attributes:
            raise NotMakeable(f"{logical_id} has no attribute {attribute}. It has {sorted(made.attributes)}.")
        return made.attributes[attribute]

    def _function(self, name: str, argument: Any) -> Any:
        if name == "GetAtt":
            logical_id, attribute = argument.split(".", 1) if isinstance(argument, str) else argument
            return self._attribute(logical_id, self.value(attribute))
        if name == "Sub":
            return self._substituted(argument)
        if name == "If":
            return self.value(argument[1] if self.condition(argument[0]) else argument[2])
        argument = self.value(argument)
        if name == "Join":
            return argument[0].join(map(str, argument[1]))
        if name == "Equals":
            return str(argument[0]) == str(argument[1])
        if name == "And":
            return all(argument)
        if name == "Or":
            return any(argument)
        if name == "Not":
            return not argument[0]
        if name == "Select":
            return argument[1][int(argument[0])]
        if name == "Split":
            return argument[1].split(argument[0])
        if name == "FindInMap":
            return self._template["Mappings"][argument[0]][argument[1]][argument[2]]
        if name == "GetAZs":
            return [f"{self._pseudo['AWS::Region']}{zone}" for zone in "abc"]
        if name == "Base64":
            return base64.b64encode(argument.encode()).decode()
        if name == "Cidr":
            network = ipaddress.ip_network(argument[0])
            return [
                str(each)
                for each, _ in zip(
                    network.subnets(new_prefix=32 - int(argument[2])), range(int(argument[1])), strict=False
                )
            ]
        raise NotMakeable(f"The intrinsic function Fn::{name} is not known here.")

    def _substituted(self, argument: Any) -> str:
        text, extra = (argument, {}) if isinstance(argument, str) else argument

        def replaced(found: re.Match[str]) -> str:
            name = found[1].strip()
            if name.startswith("!"):
                return "${" + name[1:] + "}"
            if name in extra:
                return str(self.value(extra[name]))
            if "." in name:
                logical_id, attribute = name.split(".", 1)
                return str(self._attribute(logical_id, attribute))
            return str(self._ref(name))

        return re.sub(r"\$\{([^}]+)\}", replaced, text)


_NO_VALUE = object()


# --- Making ---


class Deployment:
    """One template on its way into the local cloud."""

    def __init__(
        self,
        client: Callable[[str], Any],
        region: str,
        home: Path,
        add_function: Callable[[Function], None],
        settle_environment: Callable[[str], None],
        name: str,
        layers: dict[str, Layer] | None = None,
    ) -> None:
        """`layers`: by ARN, of the stacks around this one."""
        self._client = client
        self._region = region
        self._home = home
        self._add_function = add_function
        self._settle_environment = settle_environment
        self._name = name
        self._made: dict[str, _Made] = {}
        self._nested: dict[str, Stack] = {}
        self._underway: list[str] = []
        self._layers: dict[str, Layer] = {} if layers is None else layers

    def run(self, template_path: Path, parameters: Mapping[str, Any]) -> Stack:
        """Raises NotMakeable before or while creating; what was created until then stays."""
        self._folder = template_path.parent
        self._template, self._folders = translate(template_path, {key: str(value) for key, value in parameters.items()})
        resources = self._template["Resources"]
        pseudo = {
            "AWS::AccountId": ACCOUNT,
            "AWS::Partition": "aws",
            "AWS::Region": self._region,
            "AWS::StackId": self._stack_id,
            "AWS::StackName": self._name,
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::NotificationARNs": [],
        }
        self._resolver = _Resolver(self._template, parameters, pseudo, self._make)
        if broken := self._resolver.broken_rules():
            raise NotMakeable(" ".join(broken))
        kinds = {each["Type"] for each in resources.values() if not each["Type"].startswith(CUSTOM)}
        unknown = sorted(kinds - set(MAKERS) - _types_of_moto())
        if unknown:
            raise NotMakeable(f"The local cloud cannot make {', '.join(unknown)}. Add it to local/deploy.py.")
        wanted = [
            key
            for key, each in resources.items()
            if "Condition" not in each or self._resolver.condition(each["Condition"])
        ]
        for logical_id in wanted:
            self._make(logical_id)
        outputs = {
            key: str(self._resolver.value(each["Value"]))
            for key, each in self._template.get("Outputs", {}).items()
            if "Condition" not in each or self._resolver.condition(each["Condition"])
        }
        return Stack(
            outputs,
            {key: made.ref for key, made in self._made.items()},
            {key: resources[key]["Type"] for key in self._made},
            self._nested,
        )

    @property
    def _stack_id(self) -> str:
        return f"arn:aws:cloudformation:{self._region}:{ACCOUNT}:stack/{self._name}/local"

    def _make(self, logical_id: str) -> _Made:
        if logical_id in self._made:
            return self._made[logical_id]
        resource = self._template["Resources"].get(logical_id)
        if resource is None:
            raise NotMakeable(f"The template refers to {logical_id}, which it does not define.")
        if "Condition" in resource and not self._resolver.condition(resource["Condition"]):
            raise NotMakeable(f"The template refers to {logical_id}, whose condition {resource['Condition']} is false.")
        if logical_id in self._underway:
            raise NotMakeable(f"Circular dependency: {' > '.join([*self._underway, logical_id])}.")
        self._underway.append(logical_id)
        try:
            depends = resource.get("DependsOn", [])
            for each in [depends] if isinstance(depends, str) else depends:
                needed = self._template["Resources"].get(each, {})
                if "Condition" not in needed or self._resolver.condition(needed["Condition"]):
                    self._make(each)
            properties = _Properties(logical_id, resource["Type"], self._resolver.value(resource.get("Properties", {})))
            custom = resource["Type"].startswith(CUSTOM)
            maker = Deployment.custom_resource if custom else MAKERS.get(resource["Type"])
            made = maker(self, properties) if maker else self._make_by_moto(properties)
            properties.all_taken()
        finally:
            self._underway.pop()
        self._made[logical_id] = made
        return made

    def _make_by_moto(self, properties: _Properties) -> _Made:
        """A stack of one resource, all references resolved."""
        logical_id, values = properties.logical_id, properties.rest()
        name = f"{self._name}-{logical_id}"
        body = {"Resources": {logical_id: {"Type": properties.type, "Properties": values}}}
        self._client("cloudformation").create_stack(StackName=name, TemplateBody=json.dumps(body))
        stack = get_backend("cloudformation")[ACCOUNT][self._region].get_stack(name)
        resource = stack.resource_map[logical_id]
        # What has no id of its own in EC2 (a rule of a security group) goes by its logical one.
        return _Made(getattr(resource, "physical_resource_id", logical_id), _MotoAttributes(resource))

    def physical(self, properties: _Properties, key: str, lower: bool = False) -> str:
        """The name that the template gives, or one of stack and logical id."""
        name = properties.take(key, None) or f"{self._name}-{properties.logical_id}"
        return name.lower() if lower else name

    # --- Stacks and custom resources ---

    def stack(self, properties: _Properties) -> _Made:
        """From a local template, as it is before `sam package` gives it a URL."""
        path = (self._folder / properties.take("TemplateURL")).resolve()
        if not path.is_file():
            raise NotMakeable(f"{properties.logical_id}: there is no template {path}. Correct TemplateURL.")
        parameters = properties.take("Parameters", {})
        name = f"{self._name}-{properties.logical_id}"
        properties.without_effect("TimeoutInMinutes", "Tags", "NotificationARNs")
        inner = Deployment(
            self._client, self._region, self._home, self._add_function, self._settle_environment, name, self._layers
        )
        made = self._nested[properties.logical_id] = inner.run(path, parameters)
        return _Made(inner._stack_id, {f"Outputs.{key}": value for key, value in made.outputs.items()})

    def custom_resource(self, properties: _Properties) -> _Made:
        """Asks its function to create it. A refusal is NotMakeable, with the function's reason."""
        function = properties.get("ServiceToken")
        properties.without_effect("ServiceTimeout")

        def invoke(payload: bytes) -> tuple[bytes, bool]:
            answer = self._client("lambda").invoke(FunctionName=function, Payload=payload)
            return answer["Payload"].read(), "FunctionError" in answer

        with custom_resources.Door() as door:
            asked = custom_resources.request(
                "Create", door.url, properties.logical_id, self._stack_id, properties.rest()
            )
            answer = custom_resources.ask(invoke, asked, door)
        if answer["Status"] != "SUCCESS":
            raise NotMakeable(f"{properties.logical_id} could not be created: {answer['Reason']}")
        return _Made(answer["PhysicalResourceId"], answer.get("Data", {}))

    # --- Storage and keys ---

    def bucket(self, properties: _Properties) -> _Made:
        s3 = self._client("s3")
        name = self.physical(properties, "BucketName", lower=True)
        s3.create_bucket(Bucket=name)
        if versioning := properties.take("VersioningConfiguration", None):
            s3.put_bucket_versioning(Bucket=name, VersioningConfiguration=versioning)
        if encryption := properties.take("BucketEncryption", None):
            rules = [
                {
                    ("Apply" + key if key == "ServerSideEncryptionByDefault" else key): value
                    for key, value in rule.items()
                }
                for rule in encryption["ServerSideEncryptionConfiguration"]
            ]
            s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": rules})
        if block := properties.take("PublicAccessBlockConfiguration", None):
            s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=_typed(block))
        if ownership := properties.take("OwnershipControls", None):
            s3.put_bucket_ownership_controls(Bucket=name, OwnershipControls=ownership)
        if tags := properties.take("Tags", None):
            s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags})
        if lifecycle := properties.take("LifecycleConfiguration", None):
            rules = [_lifecycle_rule(each) for each in lifecycle["Rules"]]
            s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": rules})
        properties.without_effect("LoggingConfiguration", "NotificationConfiguration")
        return _Made(name, {
            "Arn": f"arn:aws:s3:::{name}",
            "DomainName": f"{name}.s3.amazonaws.com",
            "RegionalDomainName": f"{name}.s3.{self._region}.amazonaws.com",
        })  # fmt: skip

    def bucket_policy(self, properties: _Properties) -> _Made:
        bucket = properties.take("Bucket")
        self._client("s3").put_bucket_policy(Bucket=bucket, Policy=_policy(properties.take("PolicyDocument")))
        return _Made(bucket)

    def key(self, properties: _Properties) -> _Made:
        kms = self._client("kms")
        rotation = properties.take("EnableKeyRotation", False)
        key = kms.create_key(
            Policy=json.dumps(properties.take("KeyPolicy", {})),
            Description=properties.take("Description", ""),
            Tags=[{"TagKey": each["Key"], "TagValue": each["Value"]} for each in properties.take("Tags", [])],
        )["KeyMetadata"]
        properties.without_effect("PendingWindowInDays", "Enabled", "KeySpec", "KeyUsage", "MultiRegion")
        if str(rotation).lower() == "true":
            kms.enable_key_rotation(KeyId=key["KeyId"])
        return _Made(key["KeyId"], {"Arn": key["Arn"], "KeyId": key["KeyId"]})

    def key_alias(self, properties: _Properties) -> _Made:
        name = properties.take("AliasName")
        self._client("kms").create_alias(AliasName=name, TargetKeyId=properties.take("TargetKeyId"))
        return _Made(name)

    def table(self, properties: _Properties) -> _Made:
        name = self.physical(properties, "TableName")
        recovery = properties.take("PointInTimeRecoverySpecification", None)
        lifetime = properties.take("TimeToLiveSpecification", None)
        encryption = properties.take("SSESpecification", None)
        if encryption and "SSEEnabled" in encryption:
            encryption["Enabled"] = encryption.pop("SSEEnabled")
        if encryption:
            properties.put("SSESpecification", _typed(encryption))
        properties.typed("DeletionProtectionEnabled")
        dynamodb = self._client("dynamodb")
        table = dynamodb.create_table(TableName=name, **properties.rest())["TableDescription"]
        if recovery:
            dynamodb.update_continuous_backups(TableName=name, PointInTimeRecoverySpecification=_typed(recovery))
        if lifetime:
            dynamodb.update_time_to_live(TableName=name, TimeToLiveSpecification=_typed(lifetime))
        return _Made(name, {"Arn": table["TableArn"]})

    def parameter(self, properties: _Properties) -> _Made:
        name = self.physical(properties, "Name")
        tags = [{"Key": key, "Value": value} for key, value in (properties.take("Tags", None) or {}).items()]
        values = properties.rest()
        self._client("ssm").put_parameter(Name=name, Tags=tags, **values)
        return _Made(name, {"Type": values["Type"], "Value": values["Value"]})

    # --- What moto's CloudFormation makes by halves ---

    def network(self, properties: _Properties) -> _Made:
        """moto leaves the attributes of DNS as they are."""
        ec2 = self._client("ec2")
        attributes = {key: properties.take(key, None) for key in ("EnableDnsSupport", "EnableDnsHostnames")}
        made = self._make_by_moto(properties)
        for key, value in attributes.items():
            if value is not None:
                ec2.modify_vpc_attribute(VpcId=made.ref, **{key: {"Value": _typed(str(value))}})
        return made

    def subnet_routes(self, properties: _Properties) -> _Made:
        """moto notes it where nobody looks."""
        return _Made(self._client("ec2").associate_route_table(**properties.rest())["AssociationId"])

    # --- Messages ---

    def topic(self, properties: _Properties) -> _Made:
        name = self.physical(properties, "TopicName")
        attributes = {
            key: str(value)
            for key in ("DisplayName", "KmsMasterKeyId", "FifoTopic", "TracingConfig", "SignatureVersion")
            if (value := properties.take(key, None)) is not None
        }
        sns = self._client("sns")
        arn = sns.create_topic(Name=name, Attributes=attributes, Tags=properties.take("Tags", []))["TopicArn"]
        for each in properties.take("Subscription", []):
            sns.subscribe(TopicArn=arn, Protocol=each["Protocol"], Endpoint=each["Endpoint"])
        return _Made(arn, {"TopicArn": arn, "TopicName": name})

    def topic_policy(self, properties: _Properties) -> _Made:
        policy = _policy(properties.take("PolicyDocument"))
        for arn in properties.take("Topics"):
            self._client("sns").set_topic_attributes(TopicArn=arn, AttributeName="Policy", AttributeValue=policy)
        return _Made(properties.logical_id)

    def subscription(self, properties: _Properties) -> _Made:
        arn = self._client("sns").subscribe(
            TopicArn=properties.take("TopicArn"),
            Protocol=properties.take("Protocol"),
            Endpoint=properties.take("Endpoint"),
        )["SubscriptionArn"]
        properties.without_effect("FilterPolicy", "FilterPolicyScope", "RawMessageDelivery", "RedrivePolicy")
        return _Made(arn)

    def queue(self, properties: _Properties) -> _Made:
        name = self.physical(properties, "QueueName")
        tags = {each["Key"]: each["Value"] for each in properties.take("Tags", [])}
        attributes = {
            key: json.dumps(value)
            if isinstance(value, dict)
            else str(value).lower()
            if isinstance(value, bool)
            else str(value)
            for key, value in properties.rest().items()
        }
        url = self._client("sqs").create_queue(QueueName=name, Attributes=attributes, tags=tags)["QueueUrl"]
        arn = f"arn:aws:sqs:{self._region}:{ACCOUNT}:{name}"
        return _Made(url, {"Arn": arn, "QueueName": name, "QueueUrl": url})

    def queue_policy(self, properties: _Properties) -> _Made:
        policy = _policy(properties.take("PolicyDocument"))
        for url in properties.take("Queues"):
            self._client("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
        return _Made(properties.logical_id)

    # --- Permissions ---

    def role(self, properties: _Properties) -> _Made:
        iam = self._client("iam")
        name = self.physical(properties, "RoleName")[:64]
        managed = properties.take("ManagedPolicyArns", [])
        policies = properties.take("Policies", [])
        trust = _policy(properties.take("AssumeRolePolicyDocument"))
        properties.typed("MaxSessionDuration", int)
        role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust, **properties.rest())["Role"]
        for policy in policies:
            iam.put_role_policy(
                RoleName=name, PolicyName=policy["PolicyName"], PolicyDocument=_policy(policy["PolicyDocument"])
            )
        for arn in managed:
            if (
                arn.split(":")[4] == "aws"
            ):  # AWS's own are not loaded: made when first used, allowing nothing by themselves
                self._aws_managed_policy(arn)
            iam.attach_role_policy(RoleName=name, PolicyArn=arn)
        return _Made(name, {"Arn": role["Arn"], "RoleId": role["RoleId"]})

    @staticmethod
    def _aws_managed_policy(arn: str) -> None:
        from moto.iam.models import ManagedPolicy

        policies = get_backend("iam")[ACCOUNT]["aws"].managed_policies
        if arn not in policies:
            path, _, name = arn.split(":policy")[1].rpartition("/")
            document = json.dumps({"Version": "2012-10-17", "Statement": []})
            policy = ManagedPolicy(name, account_id="aws", region="us-east-1", path=f"{path}/", document=document)
            policies[arn] = policy

    def policy(self, properties: _Properties) -> _Made:
        name = properties.take("PolicyName")
        document = _policy(properties.take("PolicyDocument"))
        for role in properties.take("Roles"):
            self._client("iam").put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=document)
        return _Made(name)

    def managed_policy(self, properties: _Properties) -> _Made:
        name = self.physical(properties, "ManagedPolicyName")
        arn = self._client("iam").create_policy(
            PolicyName=name,
            Path=properties.take("Path", "/"),
            Description=properties.take("Description", ""),
            PolicyDocument=_policy(properties.take("PolicyDocument")),
        )["Policy"]["Arn"]
        for role in properties.take("Roles", []):
            self._client("iam").attach_role_policy(RoleName=role, PolicyArn=arn)
        return _Made(arn, {"PolicyArn": arn})

    # --- Functions and state machines ---

    def layer(self, properties: _Properties) -> _Made:
        source = properties.take("Content")["S3Key"]
        properties.without_effect("Description", "LicenseInfo")
        version = self._client("lambda").publish_layer_version(
            LayerName=self.physical(properties, "LayerName"), Content={"ZipFile": _TINY_ZIP}, **properties.rest()
        )
        folder = self._folders[source]
        self._layers[version["LayerVersionArn"]] = Layer(folder, source.startswith("python/"))
        return _Made(version["LayerVersionArn"], {"LayerVersionArn": version["LayerVersionArn"]})

    def function(self, properties: _Properties) -> _Made:
        name = self.physical(properties, "FunctionName")[:64]
        code = properties.take("Code")
        reserved = properties.take("ReservedConcurrentExecutions", None)
        properties.without_effect("RecursiveLoop", "RuntimeManagementConfig", "SnapStart")
        properties.put("Tags", {each["Key"]: each["Value"] for each in properties.take("Tags", [])})
        for number in ("Timeout", "MemorySize"):
            properties.typed(number, int)
        values = properties.rest()
        layers = [self._layers[arn] for arn in values.get("Layers", []) if arn in self._layers]
        if variables := values.get("Environment", {}).get("Variables"):
            variables = {key: str(value) for key, value in variables.items()}
            if "/opt" in variables.values():
                opt = _unpacked(layers, self._home / "opt" / name)
                variables = {key: str(opt) if value == "/opt" else value for key, value in variables.items()}
            values["Environment"] = {"Variables": variables}
        client = self._client("lambda")
        made = client.create_function(FunctionName=name, Code={"ZipFile": _TINY_ZIP}, **values)
        if reserved is not None:
            client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=int(reserved))
        folder = self._folders.get(code.get("S3Key", ""))
        if folder is None:
            raise NotMakeable(f"{properties.logical_id} has no local code. Give it a CodeUri.")
        self._add_function(
            Function(
                logical_id=properties.logical_id,
                name=name,
                folder=folder,
                layers=tuple(layer.folder for layer in layers),
                handler=values["Handler"],
                variables=values.get("Environment", {}).get("Variables", {}),
                timeout=values.get("Timeout", 3),
                memory=values.get("MemorySize", 128),
                role_arn=values["Role"],
                arn=made["FunctionArn"],
            )
        )
        return _Made(name, {"Arn": made["FunctionArn"]})

    def version(self, properties: _Properties) -> _Made:
        made = self._client("lambda").publish_version(**properties.rest())
        return _Made(made["FunctionArn"], {"FunctionArn": made["FunctionArn"], "Version": made["Version"]})

    def function_alias(self, properties: _Properties) -> _Made:
        properties.put("FunctionVersion", str(properties.take("FunctionVersion")))
        arn = self._client("lambda").create_alias(**properties.rest())["AliasArn"]
        return _Made(arn, {"AliasArn": arn})

    def permission(self, properties: _Properties) -> _Made:
        self._client("lambda").add_permission(StatementId=properties.logical_id, **properties.rest())
        return _Made(properties.logical_id)

    def invoke_config(self, properties: _Properties) -> _Made:
        self._client("lambda").put_function_event_invoke_config(**properties.rest())
        return _Made(properties.logical_id)

    def state_machine(self, properties: _Properties) -> _Made:
        name = self.physical(properties, "StateMachineName")
        definition = properties.take("DefinitionString", None) or json.dumps(properties.take("Definition"))
        substitutions = {key: str(value) for key, value in properties.take("DefinitionSubstitutions", {}).items()}
        names = sorted(set(re.findall(r"\$\{([^}]+)\}", definition)))
        if missing := [each for each in names if each not in substitutions]:
            raise NotMakeable(f"{properties.logical_id}: nothing substitutes {missing} in the definition.")
        for each in names:
            definition = definition.replace("${" + each + "}", json.dumps(substitutions[each])[1:-1])
        check_targets(properties.logical_id, json.loads(definition))
        arn = self._client("stepfunctions").create_state_machine(
            name=name,
            definition=definition,
            roleArn=properties.take("RoleArn"),
            type=properties.take("StateMachineType", "STANDARD"),
            loggingConfiguration=_typed(_lower_camel(properties.take("LoggingConfiguration", {}))),
            tracingConfiguration=_typed(_lower_camel(properties.take("TracingConfiguration", {}))),
            tags=[_lower_camel(each) for each in properties.take("Tags", [])],
        )["stateMachineArn"]
        properties.without_effect("EncryptionConfiguration")
        return _Made(arn, {"Arn": arn, "Name": name})

    # --- Schedules, rules, alarms, logs ---

    def schedule_group(self, properties: _Properties) -> _Made:
        name = self.physical(properties, "Name")
        arn = self._client("scheduler").create_schedule_group(Name=name, **properties.rest())["ScheduleGroupArn"]
        return _Made(name, {"Arn": arn})

    def schedule(self, properties: _Properties) -> _Made:
        name = self.physical(properties, "Name")
        values = properties.rest()
        retry = values.get("Target", {}).get("RetryPolicy", {})
        values["Target"].update({"RetryPolicy": {key: int(value) for key, value in retry.items()}} if retry else {})
        arn = self._client("scheduler").create_schedule(Name=name, **values)["ScheduleArn"]
        return _Made(name, {"Arn": arn})

    def rule(self, properties: _Properties) -> _Made:
        name = self.physical(properties, "Name")
        events = self._client("events")
        targets = properties.take("Targets", [])
        pattern = properties.take("EventPattern", None)
        if pattern:
            properties.put("EventPattern", json.dumps(pattern))
        bus = properties.get("EventBusName")
        arn = events.put_rule(Name=name, **properties.rest())["RuleArn"]
        if targets:
            for target in targets:
                if retry := target.get("RetryPolicy"):
                    target["RetryPolicy"] = {key: int(value) for key, value in retry.items()}
            events.put_targets(Rule=name, Targets=targets, **({"EventBusName": bus} if bus else {}))
        return _Made(name, {"Arn": arn})

    def alarm(self, properties: _Properties) -> _Made:
        name = self.physical(properties, "AlarmName")
        for key in ("Period", "EvaluationPeriods", "DatapointsToAlarm"):
            properties.typed(key, int)
        properties.typed("Threshold", float)
        properties.typed("ActionsEnabled")
        for metric in properties.get("Metrics") or []:
            if "ReturnData" in metric:
                metric["ReturnData"] = str(metric["ReturnData"]).lower() == "true"
            if "Period" in metric.get("MetricStat", {}):
                metric["MetricStat"]["Period"] = int(metric["MetricStat"]["Period"])
        self._client("cloudwatch").put_metric_alarm(AlarmName=name, **properties.rest())
        return _Made(name, {"Arn": f"arn:aws:cloudwatch:{self._region}:{ACCOUNT}:alarm:{name}"})

    def composite_alarm(self, properties: _Properties) -> _Made:
        name = self.physical(properties, "AlarmName")
        properties.typed("ActionsEnabled")
        self._client("cloudwatch").put_composite_alarm(AlarmName=name, **properties.rest())
        return _Made(name, {"Arn": f"arn:aws:cloudwatch:{self._region}:{ACCOUNT}:alarm:{name}"})

    def dashboard(self, properties: _Properties) -> _Made:
        name = self.physical(properties, "DashboardName")
        self._client("cloudwatch").put_dashboard(DashboardName=name, DashboardBody=properties.take("DashboardBody"))
        return _Made(name)

    def log_group(self, properties: _Properties) -> _Made:
        name = self.physical(properties, "LogGroupName")
        logs = self._client("logs")
        key = properties.take("KmsKeyId", None)
        logs.create_log_group(logGroupName=name, **({"kmsKeyId": key} if key else {}))
        if days := properties.take("RetentionInDays", None):
            logs.put_retention_policy(logGroupName=name, retentionInDays=int(days))
        if tags := properties.take("Tags", None):
            logs.tag_log_group(logGroupName=name, tags={each["Key"]: each["Value"] for each in tags})
        properties.without_effect("LogGroupClass", "DeletionProtectionEnabled")
        return _Made(name, {"Arn": f"arn:aws:logs:{self._region}:{ACCOUNT}:log-group:{name}:*"})

    def metric_filter(self, properties: _Properties) -> _Made:
        name = self.physical(properties, "FilterName")
        self._client("logs").put_metric_filter(filterName=name, **_lower_camel(properties.rest()))
        return _Made(name)

    # --- Analytics, and Airflow itself ---

    def database(self, properties: _Properties) -> _Made:
        catalog = properties.take("CatalogId", ACCOUNT)
        database = properties.take("DatabaseInput")
        database.setdefault("Name", f"{self._name}-{properties.logical_id}".lower())
        self._client("glue").create_database(CatalogId=catalog, DatabaseInput=database)
        return _Made(database["Name"])

    def glue_table(self, properties: _Properties) -> _Made:
        table = properties.take("TableInput")
        self._client("glue").create_table(
            CatalogId=properties.take("CatalogId", ACCOUNT),
            DatabaseName=properties.take("DatabaseName"),
            TableInput=table,
        )
        return _Made(table["Name"])

    def glue_job(self, properties: _Properties) -> _Made:
        name = self.physical(properties, "Name")
        for key in ("MaxRetries", "NumberOfWorkers", "Timeout"):
            properties.typed(key, int)
        self._client("glue").create_job(Name=name, **properties.rest())
        return _Made(name)

    def glue_crawler(self, properties: _Properties) -> _Made:
        name = self.physical(properties, "Name")
        if schedule := properties.take("Schedule", None):
            properties.put("Schedule", schedule["ScheduleExpression"])
        self._client("glue").create_crawler(Name=name, **properties.rest())
        return _Made(name)

    def work_group(self, properties: _Properties) -> _Made:
        name = properties.take("Name")
        properties.without_effect("RecursiveDeleteOption", "State")
        configuration = _typed(properties.take("WorkGroupConfiguration", {}))
        self._client("athena").create_work_group(Name=name, Configuration=configuration, **properties.rest())
        return _Made(name)

    def named_query(self, properties: _Properties) -> _Made:
        properties.put("Name", self.physical(properties, "Name"))
        made = self._client("athena").create_named_query(**properties.rest())["NamedQueryId"]
        return _Made(made, {"NamedQueryId": made})

    def environment(self, properties: _Properties) -> _Made:
        name = properties.take("Name")
        for key in ("MaxWorkers", "MinWorkers", "MinWebservers", "MaxWebservers", "Schedulers"):
            properties.typed(key, int)
        for module in (properties.get("LoggingConfiguration") or {}).values():
            module["Enabled"] = str(module["Enabled"]).lower() == "true"
        mwaa = self._client("mwaa")
        arn = mwaa.create_environment(Name=name, **properties.rest())["Arn"]
        self._settle_environment(name)
        made = mwaa.get_environment(Name=name)["Environment"]
        return _Made(name, {**made, "Arn": arn})


def _unpacked(layers: list[Layer], folder: Path) -> Path:
    """All layers in one folder, as Lambda has them in /opt."""
    for layer in layers:
        into = folder / "python" if layer.libraries else folder
        shutil.copytree(layer.folder, into, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


class _Properties:
    """A resource's resolved properties; each must be taken, or be named as one without effect here."""

    def __init__(self, logical_id: str, kind: str, values: dict[str, Any]) -> None:
        self.logical_id = logical_id
        self.type = kind
        self._values = dict(values)

    def take(self, key: str, default: Any = ...) -> Any:
        if key not in self._values and default is ...:
            raise NotMakeable(f"{self.logical_id} ({self.type}) needs {key}.")
        return self._values.pop(key, default)

    def get(self, key: str) -> Any:
        return self._values.get(key)

    def put(self, key: str, value: Any) -> None:
        self._values[key] = value

    def typed(self, key: str, kind: Callable[[Any], Any] = lambda value: str(value).lower() == "true") -> None:
        """CloudFormation takes "30" and "true" for 30 and true; the APIs do not."""
        if key in self._values:
            self._values[key] = kind(self._values[key])

    def rest(self) -> dict[str, Any]:
        """Everything left, for an API whose members have the same names: botocore refuses an unknown one."""
        values, self._values = self._values, {}
        return values

    def without_effect(self, *keys: str) -> None:
        for key in keys:
            self._values.pop(key, None)

    def all_taken(self) -> None:
        if self._values:
            raise NotMakeable(
                f"{self.logical_id} ({self.type}) has {sorted(self._values)}, which would be lost. "
                "Add it to local/deploy.py."
            )


class _MotoAttributes(Mapping[str, Any]):
    """GetAtt of what moto's CloudFormation made."""

    def __init__(self, resource: Any) -> None:
        self._resource = resource

    def __getitem__(self, name: str) -> Any:
        return self._resource.get_cfn_attribute(name)

    def __contains__(self, name: object) -> bool:
        return self._resource.has_cfn_attr(name)

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0


CUSTOM = ("AWS::CloudFormation::CustomResource", "Custom::")
"""How the types of custom resources begin."""

MAKERS: dict[str, Callable[[Deployment, _Properties], _Made]] = {
    "AWS::Athena::NamedQuery": Deployment.named_query,
    "AWS::Athena::WorkGroup": Deployment.work_group,
    "AWS::CloudFormation::Stack": Deployment.stack,
    "AWS::CloudWatch::Alarm": Deployment.alarm,
    "AWS::CloudWatch::CompositeAlarm": Deployment.composite_alarm,
    "AWS::CloudWatch::Dashboard": Deployment.dashboard,
    "AWS::DynamoDB::Table": Deployment.table,
    "AWS::EC2::SubnetRouteTableAssociation": Deployment.subnet_routes,
    "AWS::EC2::VPC": Deployment.network,
    "AWS::Events::Rule": Deployment.rule,
    "AWS::Glue::Crawler": Deployment.glue_crawler,
    "AWS::Glue::Database": Deployment.database,
    "AWS::Glue::Job": Deployment.glue_job,
    "AWS::Glue::Table": Deployment.glue_table,
    "AWS::IAM::ManagedPolicy": Deployment.managed_policy,
    "AWS::IAM::Policy": Deployment.policy,
    "AWS::IAM::Role": Deployment.role,
    "AWS::KMS::Alias": Deployment.key_alias,
    "AWS::KMS::Key": Deployment.key,
    "AWS::Lambda::Alias": Deployment.function_alias,
    "AWS::Lambda::EventInvokeConfig": Deployment.invoke_config,
    "AWS::Lambda::Function": Deployment.function,
    "AWS::Lambda::LayerVersion": Deployment.layer,
    "AWS::Lambda::Permission": Deployment.permission,
    "AWS::Lambda::Version": Deployment.version,
    "AWS::Logs::LogGroup": Deployment.log_group,
    "AWS::Logs::MetricFilter": Deployment.metric_filter,
    "AWS::MWAA::Environment": Deployment.environment,
    "AWS::S3::Bucket": Deployment.bucket,
    "AWS::S3::BucketPolicy": Deployment.bucket_policy,
    "AWS::SNS::Subscription": Deployment.subscription,
    "AWS::SNS::Topic": Deployment.topic,
    "AWS::SNS::TopicPolicy": Deployment.topic_policy,
    "AWS::SQS::Queue": Deployment.queue,
    "AWS::SQS::QueuePolicy": Deployment.queue_policy,
    "AWS::SSM::Parameter": Deployment.parameter,
    "AWS::Scheduler::Schedule": Deployment.schedule,
    "AWS::Scheduler::ScheduleGroup": Deployment.schedule_group,
    "AWS::StepFunctions::StateMachine": Deployment.state_machine,
}


def _types_of_moto() -> set[str]:
    from moto.cloudformation.parsing import get_model_map

    return set(get_model_map())


def check_targets(machine: str, definition: dict[str, Any]) -> None:
    """AWS refuses a dangling Next; moto would run into it."""
    states = definition.get("States", {})
    for name, state in states.items():
        targets = [state.get("Next"), state.get("Default")]
        targets += [each.get("Next") for each in [*state.get("Choices", []), *state.get("Catch", [])]]
        for target in targets:
            if target is not None and target not in states:
                raise NotMakeable(f"{machine}: state {name!r} goes on to {target!r}, which does not exist.")
        for inner in [state.get("ItemProcessor"), state.get("Iterator"), *state.get("Branches", [])]:
            if inner:
                check_targets(f"{machine}, {name}", inner)
    if definition.get("StartAt") not in states:
        raise NotMakeable(f"{machine} starts at {definition.get('StartAt')!r}, which does not exist.")


def _typed(value: Any) -> Any:
    """The strings "true" and "false" as booleans, and digits as numbers, all the way down."""
    if isinstance(value, dict):
        return {key: _typed(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_typed(each) for each in value]
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    return ast.literal_eval(value) if isinstance(value, str) and re.fullmatch(r"[1-9]\d{0,8}", value) else value


def _lifecycle_rule(rule: dict[str, Any]) -> dict[str, Any]:
    """CloudFormation's rule of a bucket's lifecycle as S3's API has it. botocore refuses what is not known here."""
    values = dict(_typed(rule))
    prefix, tags = values.pop("Prefix", ""), values.pop("TagFilters", [])
    values["ID"] = values.pop("Id")
    values["Filter"] = {"And": {"Prefix": prefix, "Tags": tags}} if tags else {"Prefix": prefix}
    if days := values.pop("ExpirationInDays", None):
        values["Expiration"] = {"Days": days}
    return values


def _policy(document: dict[str, Any]) -> str:
    """As JSON. moto insists on the version that IAM lets one leave out."""
    return json.dumps({"Version": "2012-10-17", **document})


def _lower_camel(value: Any) -> Any:
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: _lower_camel(each) for key, each in value.items()}
    return [_lower_camel(each) for each in value] if isinstance(value, list) else value


def _tiny_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("README", "The code is in a local folder.")
    return buffer.getvalue()


_TINY_ZIP = _tiny_zip()
"""moto wants code; ours stays in its folder."""
