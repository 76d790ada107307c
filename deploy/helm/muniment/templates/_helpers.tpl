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

{{- define "muniment.signsIn" -}}
{{- with .Values.signIn }}{{ if or .issuer .config.configMap .config.secret }}true{{ end }}{{ end }}
{{- end }}

{{- define "muniment.refuseSignIn" -}}
{{- $asks := include "muniment.signsIn" . }}
{{- if not (or $asks .Values.allowUnauthenticatedNetworkAccess) }}
{{- fail "nobody has to sign in: whoever reaches the service can read and change everything. Name an identity provider (signIn.issuer and signIn.audience), or limit who reaches it (networkPolicy.ingressFrom) and say allowUnauthenticatedNetworkAccess=true" }}
{{- end }}
{{- if and $asks .Values.allowUnauthenticatedNetworkAccess }}
{{- fail "signIn and allowUnauthenticatedNetworkAccess=true contradict each other: leave one of them out" }}
{{- end }}
{{- with .Values.signIn }}
{{- if and .issuer (not .audience) }}
{{- fail "signIn.issuer needs signIn.audience: what its tokens have as aud" }}
{{- end }}
{{- if and (not .issuer) (or .audience .adminGroup .loginClient .cliClient) }}
{{- fail "signIn.audience, adminGroup, loginClient and cliClient are of signIn.issuer: name it, or say them in the file of signIn.config" }}
{{- end }}
{{- if and .loginClientSecret.name (not .loginClient) }}
{{- fail "signIn.loginClientSecret is of signIn.loginClient: name it" }}
{{- end }}
{{- if and .loginClient (not .publicUrl) }}
{{- fail "signIn.loginClient needs signIn.publicUrl: where the issuer sends browsers back to" }}
{{- end }}
{{- if and .config.configMap .config.secret }}
{{- fail "signIn.config is from a configMap or from a secret, not from both" }}
{{- end }}
{{- end }}
{{- if and $asks .Values.snapshots.uri .Values.snapshots.schedule (not .Values.snapshots.tokenSecret.name) }}
{{- fail "the job that makes snapshots has to sign in: name the Secret that will have its token in snapshots.tokenSecret.name, or set snapshots.schedule=\"\"" }}
{{- end }}
{{- if and $asks .Values.serviceMonitor.enabled (not .Values.serviceMonitor.tokenSecret.name) }}
{{- fail "Prometheus has to sign in: name the Secret that will have its token in serviceMonitor.tokenSecret.name" }}
{{- end }}
{{- end }}

{{- define "muniment.refuse" -}}
{{- if not .Values.kafka.bootstrapServers }}
{{- fail "kafka.bootstrapServers is empty: name a few brokers, as --set 'kafka.bootstrapServers={broker-1:9092,broker-2:9092}'" }}
{{- end }}
{{- include "muniment.refuseSignIn" . }}
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
{{- if and (gt (int .Values.replicaCount) 1) (not .Values.keys.uri) }}
{{- fail "several replicas need one place for the keys of identities: set keys.uri to s3://, gs:// or az://BUCKET/PREFIX" }}
{{- end }}
{{- end }}

{{- define "muniment.hosts" -}}
{{- $name := include "muniment.fullname" . -}}
{{- $hosts := list "$(POD_IP)" $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .Release.Namespace) -}}
{{- if and .Values.snapshots.uri .Values.snapshots.schedule }}{{ $hosts = append $hosts (printf "%s-snapshot" $name) }}{{ end -}}
{{- if .Values.ingress.enabled }}{{ range .Values.ingress.hosts }}{{ $hosts = append $hosts .host }}{{ end }}{{ end -}}
{{- if .Values.httpRoute.enabled }}{{ $hosts = concat $hosts .Values.httpRoute.hostnames }}{{ end -}}
{{- with .Values.signIn.publicUrl }}{{ $hosts = append $hosts (urlParse .).hostname }}{{ end -}}
{{- join "," (uniq (concat $hosts .Values.allowedHosts)) -}}
{{- end }}

{{- define "muniment.signInEnvironment" -}}
{{- with .Values.signIn }}
{{- if .issuer }}
- {name: MUNIMENT_ISSUER, value: {{ .issuer | quote }}}
- {name: MUNIMENT_AUDIENCE, value: {{ .audience | quote }}}
{{- end }}
{{- with .adminGroup }}
- {name: MUNIMENT_ADMIN_GROUP, value: {{ . | quote }}}
{{- end }}
{{- with .loginClient }}
- {name: MUNIMENT_LOGIN_CLIENT, value: {{ . | quote }}}
{{- end }}
{{- with .loginClientSecret }}{{ if .name }}
- name: MUNIMENT_LOGIN_CLIENT_SECRET
  valueFrom: {secretKeyRef: {name: {{ .name }}, key: {{ .key }}}}
{{- end }}{{ end }}
{{- with .cliClient }}
- {name: MUNIMENT_CLI_CLIENT, value: {{ . | quote }}}
{{- end }}
{{- with .publicUrl }}
- {name: MUNIMENT_PUBLIC_URL, value: {{ . | quote }}}
{{- end }}
{{- if .accessFile.configMap }}
- {name: MUNIMENT_ACCESS_FILE, value: {{ printf "/etc/muniment/access/%s" .accessFile.key | quote }}}
{{- end }}
{{- if or .config.configMap .config.secret }}
- {name: MUNIMENT_CONFIG, value: {{ printf "/etc/muniment/config/%s" .config.key | quote }}}
{{- end }}
{{- end }}
{{- end }}
