# shellcheck shell=bash
# What the scripts of this folder share. Sourced by them after launch/env.sh.

[[ "$RUN_NAME" =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] \
  || die "RUN_NAME=$RUN_NAME cannot name a JobSet: small letters, digits and -, at most 40"
kubectl_flags=(--namespace="$GKE_NAMESPACE" ${GKE_CLUSTER:+--context="$GKE_CLUSTER"})
# shellcheck disable=SC2034  # the scripts that source it use it
pods="jobset.sigs.k8s.io/jobset-name=$RUN_NAME"

on_cluster() {  # ARGUMENTS of kubectl
  run kubectl "$1" "${kubectl_flags[@]}" "${@:2}"
}

expect_job() {  # ARGUMENTS of the script: `job` alone
  [[ $# == 1 && "$1" == job ]] || usage
}

json() {  # TEXT as a string of JSON, which YAML reads, too
  local text="${1//\\/\\\\}"
  [[ "$text" != *[[:cntrl:]]* ]] || die "a value has a line break or the like: $1"
  printf '"%s"' "${text//\"/\\\"}"
}
