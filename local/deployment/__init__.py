"""`sam deploy` without an account: template.yaml read, checked, and deployed into the offline stack."""
