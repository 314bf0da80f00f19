{{/* Name of the application; the blueprint's prefix "bp-" is packaging. */}}
{{- define "voucher-operator.name" -}}
{{- .Values.nameOverride | default "voucher-operator" | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Name of the objects: the release's name if it contains the application's. 44 characters leave room for suffixes. */}}
{{- define "voucher-operator.fullname" -}}
{{- $name := include "voucher-operator.name" . -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- .Values.fullnameOverride | default $full | trunc 44 | trimSuffix "-" -}}
{{- end -}}

{{/*
Labels of an object, as a map in YAML. Call with (list $ "component" "name suffix").
The migration has another name, so that the operator's selectors do not match its pods.
*/}}
{{- define "voucher-operator.labels" -}}
{{- $ := index . 0 -}}
{{ include "voucher-operator.selectorLabels" (list $ (index . 2)) }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/component: {{ index . 1 }}
app.kubernetes.io/part-of: catalyst
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
catalyst.openova.io/blueprint: {{ $.Chart.Name }}
{{- end -}}

{{- define "voucher-operator.selectorLabels" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: {{ printf "%s%s" (include "voucher-operator.name" $) (index . 1) | quote }}
app.kubernetes.io/instance: {{ $.Release.Name | quote }}
{{- end -}}

{{- define "voucher-operator.operatorLabels" -}}
{{- include "voucher-operator.labels" (list . "operator" "") -}}
{{- end -}}

{{- define "voucher-operator.migrationLabels" -}}
{{- include "voucher-operator.labels" (list . "migration" "-migration") -}}
{{- end -}}

{{- define "voucher-operator.serviceAccountName" -}}
{{- $own := .Values.serviceAccount.create | ternary (include "voucher-operator.fullname" .) "default" -}}
{{- .Values.serviceAccount.name | default $own -}}
{{- end -}}

{{- define "voucher-operator.migrationServiceAccountName" -}}
{{- $own := printf "%s-migration" (include "voucher-operator.fullname" .) -}}
{{- .Values.migration.serviceAccountName | default (.Values.serviceAccount.create | ternary $own "default") -}}
{{- end -}}

{{- define "voucher-operator.leaseName" -}}
{{- .Values.lease.name | default (include "voucher-operator.fullname" .) -}}
{{- end -}}

{{/* The namespaces served, separated by commas. */}}
{{- define "voucher-operator.namespaces" -}}
{{- .Values.watchNamespaces | default (list .Release.Namespace) | join "," -}}
{{- end -}}

{{- define "voucher-operator.image" -}}
{{- with .Values.image -}}
{{- $path := .registry | empty | ternary .repository (printf "%s/%s" .registry .repository) -}}
{{- .digest | empty | ternary (printf "%s:%s" $path (.tag | default $.Chart.AppVersion)) (printf "%s@%s" $path .digest) -}}
{{- end -}}
{{- end -}}

{{/* The restricted profile of Pod Security. IDs that are removed from the values are chosen by the cluster (OpenShift). */}}
{{- define "voucher-operator.podSecurityContext" -}}
runAsNonRoot: true
{{- range $name, $id := .Values.podSecurityContext }}
{{- if not (kindIs "invalid" $id) }}
{{ $name }}: {{ int64 $id }}
{{- end }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "voucher-operator.securityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Environment of both containers. PG* are libpq's variables, for keys that the mounted Secret does not have. */}}
{{- define "voucher-operator.env" -}}
# A numeric uid without a user has no name, and kopf reads one.
- {name: LOGNAME, value: voucher-operator}
- {name: VOUCHER_OPERATOR_DATABASE_DIR, value: /etc/voucher-operator/database}
- {name: VOUCHER_OPERATOR_CURRENCY, value: {{ .Values.currency | quote }}}
- {name: VOUCHER_OPERATOR_RUNTIME_ROLE, value: {{ .Values.runtimeRole | quote }}}
- {name: VOUCHER_OPERATOR_LOG_LEVEL, value: {{ .Values.logLevel | quote }}}
{{- with .Values.database.host }}
- {name: PGHOST, value: {{ . | quote }}}
{{- end }}
{{- with .Values.database.port }}
- {name: PGPORT, value: {{ . | quote }}}
{{- end }}
{{- with .Values.database.name }}
- {name: PGDATABASE, value: {{ . | quote }}}
{{- end }}
{{- if .Values.database.caSecret.name }}
- {name: PGSSLMODE, value: verify-full}
- {name: PGSSLROOTCERT, value: /etc/voucher-operator/ca/ca.crt}
{{- end }}
{{- if .Values.caBundle.existingConfigMap }}
# Read by OpenSSL and by the HTTP client: for Stripe, the catalog and NATS, instead of the public CAs.
- {name: SSL_CERT_FILE, value: /etc/voucher-operator/ca-bundle/ca.crt}
{{- end }}
{{- end -}}

{{/*
Volumes of both pods. Call with (list $ "name of the Secret").
The Secret and its keys are optional: a pod starts without it and reads it when it is created.
*/}}
{{- define "voucher-operator.volumes" -}}
{{- $ := index . 0 -}}
{{- $db := $.Values.database -}}
- name: database
  secret:
    secretName: {{ index . 1 | quote }}
    optional: true
    defaultMode: 288 # 0440
    items:
      - {key: username, path: username}
      - {key: password, path: password}
      {{- if not $db.host }}
      - {key: host, path: host}
      {{- end }}
      {{- if not $db.port }}
      - {key: port, path: port}
      {{- end }}
      {{- if not $db.name }}
      - {key: dbname, path: dbname}
      {{- end }}
      {{- if not (or $db.host $db.port $db.name) }}
      - {key: uri, path: uri}
      {{- end }}
{{- with $db.caSecret }}
{{- if .name }}
- name: ca
  secret:
    secretName: {{ .name | quote }}
    optional: true
    defaultMode: 288 # 0440
    items:
      - {key: {{ .key | quote }}, path: ca.crt}
{{- end }}
{{- end }}
{{- with $.Values.caBundle }}
{{- if .existingConfigMap }}
# Not optional: without the certificates every encrypted connection would fail.
- name: ca-bundle
  configMap:
    name: {{ .existingConfigMap | quote }}
    items:
      - {key: {{ .key | quote }}, path: ca.crt}
{{- end }}
{{- end }}
- name: tmp
  emptyDir:
    sizeLimit: 16Mi
{{- end -}}

{{- define "voucher-operator.volumeMounts" -}}
# The whole directory, no subPath: otherwise a changed Secret does not reach a running container.
- name: database
  mountPath: /etc/voucher-operator/database
  readOnly: true
{{- if .Values.database.caSecret.name }}
- name: ca
  mountPath: /etc/voucher-operator/ca
  readOnly: true
{{- end }}
{{- if .Values.caBundle.existingConfigMap }}
- name: ca-bundle
  mountPath: /etc/voucher-operator/ca-bundle
  readOnly: true
{{- end }}
- name: tmp
  mountPath: /tmp
{{- end -}}

{{/* Whether the cluster has the Prometheus operator's kinds: "true" or empty. */}}
{{- define "voucher-operator.monitored" -}}
{{- .Capabilities.APIVersions.Has "monitoring.coreos.com/v1" | ternary "true" "" -}}
{{- end -}}

{{/* Label matchers of this release's series. */}}
{{- define "voucher-operator.series" -}}
{{- printf "{namespace=%q, job=%q}" .Release.Namespace (include "voucher-operator.fullname" .) -}}
{{- end -}}

{{/* Secrets with the operator's own credentials. */}}
{{- define "voucher-operator.excludedSecrets" -}}
{{- list .Values.database.existingSecret .Values.database.ownerSecret .Values.stripe.existingSecret .Values.nats.existingSecret | compact | uniq | join "," -}}
{{- end }}
