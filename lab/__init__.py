"""A cluster on one machine: real kernel, no Kubernetes, no Slack, no root; the proof that answers are right."""
