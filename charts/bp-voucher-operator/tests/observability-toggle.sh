#!/usr/bin/env bash
# Tests that monitoring is off by default, and that each object has its own toggle, and is only created if the cluster has
# monitoring.coreos.com/v1:   tests/observability-toggle.sh <chart dir>     (HELM: path of helm)
set -euo pipefail
chart=${1:?usage: observability-toggle.sh <chart dir>}
helm=${HELM:-helm}
failed=0

# render OPTION... -> the rendered kinds of monitoring, one per line
render() {
  local out
  out=$("$helm" template toggle "$chart" "$@" 2>/dev/null) || { echo "helm template failed: $*" >&2; return 1; }
  awk '/^kind: (ServiceMonitor|PrometheusRule)$/ {print $2} /^  name: .*-dashboard$/ {print "Dashboard"}' <<<"$out" | sort
}

# expect NAME KINDS OPTION...
expect() {
  local name=$1 wanted=$2 got
  shift 2
  got=$(render "$@" | tr '\n' ' ')
  if [ "${got% }" = "$wanted" ]; then
    echo "ok      $name: ${wanted:-nothing}"
  else
    echo "FAILED  $name: wanted ${wanted:-nothing}, got ${got:-nothing}" >&2
    failed=1
  fi
}

api=(--api-versions monitoring.coreos.com/v1)
on=(--set monitoring.serviceMonitor.enabled=true --set monitoring.prometheusRule.enabled=true --set monitoring.dashboard.enabled=true)
off=(--set monitoring.serviceMonitor.enabled=false --set monitoring.prometheusRule.enabled=false --set monitoring.dashboard.enabled=false)

expect "default" ""
expect "default, API there" "" "${api[@]}"
expect "on" "Dashboard PrometheusRule ServiceMonitor" "${api[@]}" "${on[@]}"
expect "on, API not there" "" "${on[@]}"
expect "off" "" "${api[@]}" "${off[@]}"
expect "service monitor alone" "ServiceMonitor" "${api[@]}" --set monitoring.serviceMonitor.enabled=true
expect "alerts alone" "PrometheusRule" "${api[@]}" --set monitoring.prometheusRule.enabled=true
expect "dashboard alone" "Dashboard" "${api[@]}" --set monitoring.dashboard.enabled=true
exit "$failed"
