"""Make the bucket that MLflow keeps files in, where it is not there yet; the credentials are those that MLflow reads itself."""

import os
import sys

import boto3
from botocore.exceptions import ClientError

client = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
try:
    client.head_bucket(Bucket=sys.argv[1])
except ClientError as error:
    if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
        raise
    client.create_bucket(Bucket=sys.argv[1])
