{{/* Environment of the operator's container for orders: prices, Stripe, NATS. The migration does not need it. */}}
{{- define "voucher-operator.buyingEnv" -}}
- {name: VOUCHER_OPERATOR_WEBHOOK_PORT, value: "8090"}
- {name: VOUCHER_OPERATOR_WEBHOOK_MAX_BYTES, value: {{ int64 .Values.stripe.webhookMaxBytes | quote }}}
- {name: VOUCHER_OPERATOR_SOVEREIGN, value: {{ .Values.sovereign | quote }}}
- {name: VOUCHER_OPERATOR_CATALOG_URL, value: {{ .Values.catalog.url | quote }}}
{{- if .Values.catalog.existingConfigMap }}
- {name: VOUCHER_OPERATOR_CATALOG_FILE, value: /etc/voucher-operator/catalog/catalog.json}
{{- end }}
- {name: VOUCHER_OPERATOR_STRIPE_API_KEY_FILE, value: /etc/voucher-operator/stripe/api-key}
- {name: VOUCHER_OPERATOR_STRIPE_WEBHOOK_SECRET_FILE, value: /etc/voucher-operator/stripe/webhook-secret}
- {name: VOUCHER_OPERATOR_STRIPE_TIMEOUT, value: {{ .Values.stripe.timeout | quote }}}
{{- if ne (toString .Values.stripe.minimumMinor) "" }}
- {name: VOUCHER_OPERATOR_STRIPE_MINIMUM_MINOR, value: {{ int64 .Values.stripe.minimumMinor | quote }}}
{{- end }}
- {name: VOUCHER_OPERATOR_CHECKOUT_SUCCESS_URL, value: {{ .Values.checkout.successUrl | quote }}}
- {name: VOUCHER_OPERATOR_CHECKOUT_CANCEL_URL, value: {{ .Values.checkout.cancelUrl | quote }}}
- {name: VOUCHER_OPERATOR_ANY_TENANT, value: {{ .Values.redemptions.anyTenant | quote }}}
- {name: VOUCHER_OPERATOR_WRONG_CODES, value: {{ int64 .Values.redemptions.wrongCodes | quote }}}
- {name: VOUCHER_OPERATOR_WRONG_CODES_SECONDS, value: {{ .Values.redemptions.wrongCodesSeconds | quote }}}
- {name: VOUCHER_OPERATOR_ORGANIZATIONS, value: {{ ne .Values.organizations.scope "None" | quote }}}
- {name: VOUCHER_OPERATOR_PAYMENT_DEADLINE, value: {{ int64 .Values.checkout.deadline | quote }}}
- {name: VOUCHER_OPERATOR_SESSION_LOOKUP_INTERVAL, value: {{ .Values.checkout.lookupInterval | quote }}}
- {name: VOUCHER_OPERATOR_NATS_URL, value: {{ .Values.nats.url | quote }}}
- {name: VOUCHER_OPERATOR_NATS_URL_FILE, value: /etc/voucher-operator/nats/url}
{{- range $name := list "user" "password" "token" }}
- {name: VOUCHER_OPERATOR_NATS_{{ upper $name }}_FILE, value: /etc/voucher-operator/nats/{{ $name }}}
{{- end }}
- {name: VOUCHER_OPERATOR_NATS_STREAM, value: {{ .Values.nats.stream | quote }}}
- {name: VOUCHER_OPERATOR_NATS_SUBJECT_PREFIX, value: {{ .Values.nats.subjectPrefix | quote }}}
{{- end -}}

{{/* Names of the volumes below, which are also the names of their directories, separated by commas. */}}
{{- define "voucher-operator.buyingVolumeNames" -}}
{{- $names := list (.Values.stripe.existingSecret | empty | ternary "" "stripe") (.Values.nats.existingSecret | empty | ternary "" "nats") (.Values.catalog.existingConfigMap | empty | ternary "" "catalog") -}}
{{- compact $names | join "," -}}
{{- end -}}

{{/* Optional, like the database's Secret: a pod starts without them and reads them when they are created. */}}
{{- define "voucher-operator.buyingVolumes" -}}
{{- with .Values.stripe }}
{{- if .existingSecret }}
- name: stripe
  secret:
    secretName: {{ .existingSecret | quote }}
    optional: true
    defaultMode: 288 # 0440
    items:
      - {key: {{ .apiKeyKey | quote }}, path: api-key}
      - {key: {{ .webhookSecretKey | quote }}, path: webhook-secret}
{{- end }}
{{- end }}
{{- with .Values.nats }}
{{- if .existingSecret }}
- name: nats
  secret:
    secretName: {{ .existingSecret | quote }}
    optional: true
    defaultMode: 288 # 0440
    items:
      - {key: {{ .key | quote }}, path: url}
      - {key: {{ .userKey | quote }}, path: user}
      - {key: {{ .passwordKey | quote }}, path: password}
      - {key: {{ .tokenKey | quote }}, path: token}
{{- end }}
{{- end }}
{{- with .Values.catalog }}
{{- if .existingConfigMap }}
- name: catalog
  configMap:
    name: {{ .existingConfigMap | quote }}
    optional: true
    items:
      - {key: {{ .key | quote }}, path: catalog.json}
{{- end }}
{{- end }}
{{- end -}}

{{/* Egress rules for those that are configured. */}}
{{- define "voucher-operator.buyingEgress" -}}
{{- $wanted := dict "stripe" .Values.stripe.existingSecret "nats" (or .Values.nats.url .Values.nats.existingSecret) "catalog" .Values.catalog.url -}}
{{- range $name := list "stripe" "nats" "catalog" }}
{{- if get $wanted $name }}
{{- with get $.Values.networkPolicy $name }}
- ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
