{{- define "muniment.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}{{ end }}{{ end }}
{{- end }}

{{- define "muniment.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "muniment.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{ include "muniment.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "muniment.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "muniment.fullname" .) .Values.serviceAccount.name }}
{{- else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- define "muniment.image" -}}
{{- if contains "@" .Values.image.repository }}{{ .Values.image.repository }}
{{- else }}{{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}{{ end }}
{{- end }}

{{- define "muniment.refuse" -}}
{{- if not .Values.kafka.bootstrapServers }}
{{- fail "kafka.bootstrapServers is empty: name a few brokers, as --set 'kafka.bootstrapServers={broker-1:9092,broker-2:9092}'" }}
{{- end }}
{{- if not .Values.allowUnauthenticatedNetworkAccess }}
{{- fail "nobody has to sign in to this release of muniment: whoever reaches the service can read and change everything. Limit who does (networkPolicy.ingressFrom), and say allowUnauthenticatedNetworkAccess=true" }}
{{- end }}
{{- with .Values.kafka }}
{{- if and (hasPrefix "SASL" .securityProtocol) (not (and .saslMechanism .username .passwordSecret.name)) }}
{{- fail "kafka.securityProtocol is SASL: set kafka.saslMechanism and kafka.username, and name the secret with the password in kafka.passwordSecret.name" }}
{{- end }}
{{- if and (eq .saslMechanism "OAUTHBEARER") (not .tokenUrl) }}
{{- fail "kafka.saslMechanism is OAUTHBEARER: say in kafka.tokenUrl where tokens come from" }}
{{- end }}
{{- if ne (empty .tls.certKey) (empty .tls.keyKey) }}
{{- fail "kafka.tls.certKey and kafka.tls.keyKey go together" }}
{{- end }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not (and .Values.httpRoute.parentRefs .Values.httpRoute.hostnames)) }}
{{- fail "httpRoute needs parentRefs (a gateway) and hostnames (the names that clients use)" }}
{{- end }}
{{- if and (gt (int .Values.replicaCount) 1) (not .Values.artifactRoot.uri) }}
{{- fail "several replicas need one place for artifacts: set artifactRoot.uri to s3://, gs:// or az://BUCKET/PREFIX" }}
{{- end }}
{{- end }}

{{- define "muniment.hosts" -}}
{{- $name := include "muniment.fullname" . -}}
{{- $hosts := list "$(POD_IP)" $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .Release.Namespace) -}}
{{- if and .Values.snapshots.uri .Values.snapshots.schedule }}{{ $hosts = append $hosts (printf "%s-snapshot" $name) }}{{ end -}}
{{- if .Values.ingress.enabled }}{{ range .Values.ingress.hosts }}{{ $hosts = append $hosts .host }}{{ end }}{{ end -}}
{{- if .Values.httpRoute.enabled }}{{ $hosts = concat $hosts .Values.httpRoute.hostnames }}{{ end -}}
{{- join "," (concat $hosts .Values.allowedHosts) -}}
{{- end }}
